"""What a training adds to the loss of the model: losses with heads of their own, which end with the training.

The heads stand in every checkpoint, so that a run goes on where it was, and never in the model's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from modeling_esi.configuration_esi import ESIConfig
from modeling_esi.losses import POSITIVES, chosen_positives, positive_pairs
from modeling_esi.modeling_esi import ESIOutput

from .checkpoints import keep_in_checkpoints
from .extra_losses import MaskedFrames, TokenFrameAlignment

Inputs = dict[str, Tensor]
ENCODER_STRIDE = 32  # samples in a frame of XResNet; of ConvNeXt V2 eight patches


class ExtraTerms(nn.Module):
    """Masked frames and token-to-frame alignment, each with its weight; a part of weight 0 is not built.

    Args:
        config: of the model whose outputs are read.
        masked_frames_weight, alignment_weight: in the sum that is added to the loss.
        seed: of the heads' weights, which are the same on all processes.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, config: ESIConfig, masked_frames_weight: float, alignment_weight: float, seed: int):
        super().__init__()
        if masked_frames_weight < 0 or alignment_weight < 0:
            raise ValueError(
                "--masked_frames_weight, --alignment_weight: expected 0 (off) or more, "
                f"got {masked_frames_weight:g} and {alignment_weight:g}."
            )
        self.masked_frames_weight, self.alignment_weight = masked_frames_weight, alignment_weight
        self.positives = config.positives
        ecg = config.ecg_config
        stride = 8 * ecg.patch_size if ecg.encoder_type == "convnextv2" else ENCODER_STRIDE
        width, text_width = ecg.hidden_sizes[-1], config.text_config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.masked_frames = MaskedFrames(width, ecg.num_leads, stride) if masked_frames_weight else None
            self.alignment = TokenFrameAlignment(width, text_width, config.hidden_size) if alignment_weight else None

    @classmethod
    def build(
        cls, config: ESIConfig, masked_frames_weight: float, alignment_weight: float, seed: int,
        accelerator: Accelerator,
    ) -> ExtraTerms | None:  # fmt: skip
        """On the accelerator's device and in its checkpoints; `None` where both weights are 0."""
        if not (masked_frames_weight or alignment_weight):
            return None
        extra = cls(config, masked_frames_weight, alignment_weight, seed).to(accelerator.device)
        keep_in_checkpoints(accelerator, "extra_terms", extra)
        return extra

    def of_step(self, inputs: Inputs) -> tuple[Inputs, Callable[[ESIOutput, slice], Tensor]]:
        """The inputs as the model may see them, and a function of its output for some rows of them: what is added.

        That is a mean over these rows (`cached_backward(..., extra_terms=...)`); the alignment contrasts them with each
        other alone.
        """
        seen, hidden = inputs, None
        if self.masked_frames is not None:
            values, hidden = self.masked_frames.hide(inputs["input_values"])
            seen = {**inputs, "input_values": values}

        def added(output: ESIOutput, rows: slice) -> Tensor:
            mine = {name: value[rows] for name, value in inputs.items()}
            return self(output, mine, None if hidden is None else hidden[rows])

        return seen, added

    def forward(self, output: ESIOutput, inputs: Mapping[str, Tensor], hidden: Tensor | None) -> Tensor:
        """The weighted sum; `inputs` before anything was hidden, `hidden (B, F)` what was."""
        ecg, terms = output.ecg_model_output, []
        if self.masked_frames is not None:
            loss = self.masked_frames(
                ecg.last_hidden_state, inputs["input_values"], hidden, inputs.get("lead_mask"), ecg.frame_mask
            )
            terms.append(self.masked_frames_weight * loss)
        if self.alignment is not None:
            states = output.text_model_output.last_hidden_state
            mask = inputs["attention_mask"][:, : states.shape[1]]  # `released` does not encode the last token
            known = chosen_positives(self.positives, **{name: inputs.get(name) for name in POSITIVES})
            loss = self.alignment(ecg.last_hidden_state, ecg.frame_mask, states, mask, positive_pairs(**known)[1])
            terms.append(self.alignment_weight * loss)
        return torch.stack(terms).sum()

    def average_gradients(self, accelerator: Accelerator) -> None:
        """The heads' gradients, averaged over processes, as DDP does it for the model."""
        for parameter in self.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
