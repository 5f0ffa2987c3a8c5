"""What stands beside exported weights: what the file takes and gives, where it comes from, and whose it is."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from transformers import PreTrainedModel

from modeling_esi import ESIForECGClassification

from .saved_model import NOT_STATED, SavedModel
from .tower import INPUT_NAME, MASK_NAME, ecg_model_of, head_of

FORMAT = "esi-ecg tower 1"
_DOOR = (
    "sampling_rate", "duration", "num_samples", "scaling", "fixed_scale_mv", "fixed_clip_mv", "scale_eps", "max_gap",
    "min_duration",
)  # fmt: skip


def tower_facts(saved: SavedModel) -> dict[str, Any]:
    """Facts of an exported tower, as JSON can hold them.

    Args:
        saved: what is exported.

    Returns:
        `input` and `outputs` (names, shapes, meaning), the settings of the door (`leads`, `sampling_rate` in Hz,
        `scaling`, ...), `weights_sha256`, `variant`, `labels` of a classifier, `license`.
    """
    model, feature_extractor = saved.model, saved.feature_extractor
    config = model.config
    ecg = getattr(config, "ecg_config", config)
    facts = {
        "format": FORMAT,
        "model": type(model).__name__,
        "variant": getattr(config, "variant", NOT_STATED),
        "encoder_type": ecg.encoder_type,
        "encoder": ecg.signal_encoder or f"{ecg.encoder_type} {list(ecg.depths)} {list(ecg.hidden_sizes)}",
        "weights_sha256": weights_digest(model),
        "license": saved.license,
        "input": {"name": INPUT_NAME, "shape": ["batch", len(feature_extractor.leads), "num_samples"],
                  "dtype": "float32", "unit": "mV", "missing": "NaN"},
        "outputs": {
            head_of(model)[0]: "one row for each record; NaN for one that the feature extractor would refuse",
            MASK_NAME: "true where a lead was measured or derived",
        },
        "leads": list(feature_extractor.leads),
    }  # fmt: skip
    facts |= {name: getattr(feature_extractor, name) for name in _DOOR}
    if isinstance(model, ESIForECGClassification):
        facts["labels"] = [config.id2label[i] for i in range(config.num_labels)]
        facts["problem_type"] = config.problem_type or "multi_label_classification"
    return facts


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over names, shapes and float32 values of the weights that a tower of this model has."""
    parts = {"ecg_model": ecg_model_of(model), "head": head_of(model)[1]}
    digest = hashlib.sha256()
    for part, module in parts.items():
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
