"""How good a model is: evaluators `(model, processor, dataset, ...) -> dict` with flat keys, over pure metrics.

`metrics` knows only arrays; `embedding` turns a data set into arrays; each protocol (`zero_shot`, `retrieval`, ...) is
a module with a function of its name, so nothing is imported here that would hide the module.

This room may use both `modeling_esi` and `datasets_scripts`; nothing that ships with the weights may use this room.
"""
