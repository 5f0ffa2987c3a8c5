"""Metrics of this room in the form of the library `evaluate`, each a file that `evaluate.load(path)` takes offline.

`evaluate.load("modeling_esi/evaluation/evaluate_modules/multilabel_auroc.py")` in a checkout; elsewhere the path of an
installed one is `importlib.resources.files("modeling_esi.evaluation.evaluate_modules") / "multilabel_auroc.py"`. They
wrap the pure functions of `modeling_esi.evaluation`, so that this package must be installed. Nothing is imported here.
"""
