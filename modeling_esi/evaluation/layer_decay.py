"""Layer-wise learning-rate decay: the earlier a layer of the ECG encoder, the smaller its learning rate.

Early layers of a trained encoder see what every recording has; late ones are closest to what it was trained for. Each
layer learns at a constant share of the rate of the layer above it, as in BEiT (https://arxiv.org/abs/2106.08254,
appendix) and ConvNeXt V2, whose fine-tuning takes 0.6 for groups of three blocks (base) or 0.9 for single ones (atto,
tiny): https://github.com/facebookresearch/ConvNeXt-V2/blob/main/TRAINING.md. Here a layer is up to three consecutive
blocks of one stage, as in the former: twelve layers in the base size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ..modeling_esi import ESIForECGClassification

BLOCKS_PER_LAYER = 3


def num_layers(depths: Sequence[int]) -> int:
    """Layers above the stem, without the head; `depths` are the blocks of each stage.

    >>> num_layers([3, 3, 27, 3]), num_layers([2, 2, 6, 2])
    (12, 5)
    """
    return sum(math.ceil(depth / BLOCKS_PER_LAYER) for depth in depths)


def layer_of(name: str, depths: Sequence[int]) -> int:
    """The layer of a parameter: 0 the stem, then blocks with the downsampling before them, last the head.

    The norm behind the last block belongs to its layer.

    Args:
        name: as in `ESIForECGClassification.named_parameters()`.
        depths: blocks of each stage.

    Raises:
        ValueError: for a name of no layer that is known.

    >>> [layer_of(f"ecg_model.encoder.{part}.weight", [3, 3, 27, 3]) for part in ("stages.2.3.dwconv", "norm")]
    [4, 12]
    """
    if name.startswith("classifier."):
        return num_layers(depths) + 1
    found = re.fullmatch(r"ecg_model\.encoder\.(stem|downsamples|stages|norm)(?:\.(\d+))?(?:\.(\d+))?\..+", name)
    if found is None:
        raise ValueError(f"layer_of: expected a parameter of the ECG encoder or of its classifier, got {name!r}.")
    part, stage, block = found[1], int(found[2] or 0), int(found[3] or 0)
    if part == "norm":
        return num_layers(depths)
    if part == "stem" or (part == "downsamples" and stage == 0):
        return 0
    within = block // BLOCKS_PER_LAYER if part == "stages" else 0
    return num_layers(depths[:stage]) + within + 1


def parameter_groups(
    model: ESIForECGClassification, lr: float, layer_decay: float, head_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW, one for each layer with and one without weight decay.

    Args:
        model: the classifier.
        lr: learning rate of the encoder's last layer; a layer that lies n below it gets `lr * layer_decay ** n`.
        layer_decay: above 0, at most 1; 1: the same rate everywhere.
        head_lr: learning rate of the linear head.
        weight_decay: of matrices and convolutions; norms, biases and GRN have none.

    Raises:
        ValueError: for a decay outside its bounds.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay: expected above 0 and at most 1, got {layer_decay}.")
    depths = model.config.ecg_config.depths
    last = num_layers(depths)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        layer, decays = layer_of(name, depths), parameter.ndim > 1
        rate = head_lr if layer > last else lr * layer_decay ** (last - layer)
        new = {"params": [], "layer": layer, "lr": rate, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault((layer, decays), new)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]
