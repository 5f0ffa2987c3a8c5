"""Texts without their padding: rows of similar length go through an encoder together, and real tokens stand in a row.

Nothing of a text depends on the rows beside it, so the results are those of the padded batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

#: Encoders that number the tokens from the first, whatever they are, so that embeddings do instead of ids. RoBERTa and
#: its kin do not: they leave out padding as they count.
COUNT_FROM_THE_FIRST = ("bert", "distilbert", "electra")


def encode_by_length(
    text_model: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    is_real: torch.Tensor,
    num_groups: int,
    **kwargs: Any,
) -> ModelOutput:
    """A text encoder's output for `input_ids (B, T)`, computed in groups of rows of similar length.

    The encoder runs `num_groups` times for any batch: where its weights are sharded over processes, each run is a
    collective, and processes may hold different numbers of rows. All rows go together where more than the last states
    is asked for, and where no mask says where texts end.

    Args:
        is_real: `(B, T)` bool, false in what stands behind a text: states there are not needed.
        num_groups: How many groups.

    Returns:
        `last_hidden_state (B, T, E)`, zero behind each group's longest text; of one group the encoder's whole output.
    """
    config = text_model.config
    is_whole = kwargs or config.output_hidden_states or config.output_attentions
    if is_whole or num_groups == 1 or attention_mask is None:
        return text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
    num_tokens = input_ids.shape[1]
    lengths = (is_real * torch.arange(1, num_tokens + 1, device=is_real.device)).amax(dim=1).clamp(min=1)
    order = lengths.argsort(descending=True, stable=True)
    groups = order.tensor_split(num_groups)
    longest = iter(torch.stack([lengths[rows[0]] for rows in groups if len(rows)]).tolist())
    inputs, states = {"input_ids": input_ids, "attention_mask": attention_mask}, []
    if config.model_type in COUNT_FROM_THE_FIRST:
        # One look-up for all groups: its gradient is as large as the whole table.
        inputs["inputs_embeds"] = text_model.get_input_embeddings()(inputs.pop("input_ids"))
    for rows in groups:
        length = next(longest, 1)
        stand_in = rows if len(rows) else order[:1]  # runs in place of an empty group, and is left out of the result
        group = {name: tensor[stand_in, :length] for name, tensor in inputs.items()}
        encoded = text_model(**group, return_dict=True).last_hidden_state[: len(rows)]
        states.append(F.pad(encoded, (0, 0, 0, num_tokens - length)))  # (b, length, E) -> (b, T, E)
    return BaseModelOutput(last_hidden_state=torch.cat(states)[order.argsort()])


@dataclass
class RealTokens:
    """Where real tokens stand in a padded batch.

    Attributes:
        index: `(N,)` places of the tokens among `B * T`.
        shape: `(B, T)`.
    """

    index: torch.Tensor
    shape: tuple[int, int]

    @classmethod
    def up_to_the_last(cls, counted: torch.Tensor) -> "RealTokens":
        """All tokens of each row up to the last one that is true in `counted (B, T)`."""
        is_real = counted.flip(1).cummax(dim=1).values.flip(1)
        if counted.is_meta:  # how many are real cannot be known: as many as there can be
            is_real = torch.ones(counted.shape, device="cpu")
        return cls(is_real.flatten().nonzero().squeeze(1).to(counted.device), tuple(counted.shape))

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """`(B, T, ...)` to `(N, ...)`."""
        return padded.flatten(0, 1).index_select(0, self.index)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """`(N, ...)` to `(B, T, ...)`, zero elsewhere."""
        padded = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return padded.index_copy(0, self.index, packed).unflatten(0, self.shape)

    def repeat(self, rows: torch.Tensor) -> torch.Tensor:
        """`(B, ...)`, one for each row, to `(N, ...)`, one for each of its tokens."""
        return rows.index_select(0, self.index // self.shape[1])
