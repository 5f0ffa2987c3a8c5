"""Attribution: which second of which lead raised the score of a sentence or a label.

Three methods, one reference: what a window is compared with is the mean of its lead.

- `occlusion` asks the model again with the window replaced: the plainest meaning, one forward pass for each window
  (Zeiler and Fergus, https://arxiv.org/abs/1311.2901, section 4.2).
- `gradient` is gradient x (input - mean), summed over the window: occlusion to first order, in one pass
  (https://arxiv.org/abs/1605.01713, section 3).
- `integrated_gradients` follows the gradient from the means to the input; all windows add up to the score minus the
  score of the means (https://arxiv.org/abs/1703.01365, section 3).

`plot_ecg(record, attribution=...)` draws the result behind the traces. It says what the model used, not what is true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["METHODS", "Attribution", "attribute"]

METHODS = ("occlusion", "gradient", "integrated_gradients")

Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each window of each lead adds to a score.

    Attributes:
        values: `(num_leads, num_windows)` float64 in units of the score; positive where the window raised it, NaN in
            leads that the model did not see.
        leads: one name per row, in the order of the feature extractor.
        window: length of a window in seconds. The first starts at the record's start; the last may be shorter.
        duration: seconds that the model saw.
        target: the sentence, or the label's name.
        score: of the whole record: a logit; for a sentence the cosine times the model's logit scale.
        method: one of `METHODS`.
    """

    values: np.ndarray
    leads: tuple[str, ...]
    window: float
    duration: float
    target: str
    score: float
    method: str


def attribute(
    model: nn.Module,
    processor: Any,
    signal: Any,
    target: str | int,
    method: str = "occlusion",
    *,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    window: float = 1.0,
    num_steps: int = 64,
    batch_size: int = 32,
) -> Attribution:
    """What each window of each lead adds to the score of `target`.

    Lead for lead: a limb lead is changed without the others that follow from it. Of a longer record the model sees
    the beginning, as the feature extractor crops it.

    Args:
        model: an `ESIModel`, or an `ESIForECGClassification`. It computes in evaluation mode, and is left as it was.
        processor: its `ESIProcessor`; for a classifier the feature extractor alone will do.
        signal, sampling_rate, leads: one record, as in `ESIFeatureExtractor.__call__`.
        target: for an `ESIModel` a sentence; for a classifier a label's number or name.
        method: one of `METHODS`.
        window: seconds.
        num_steps: points on the way of `integrated_gradients`.
        batch_size: how many changed records the model sees at a time.

    Raises:
        ValueError: for more than one record, a record that the feature extractor refuses, an unknown method or label,
            a window that is shorter than a sample or not a number, fewer than one step or record at a time.

    >>> import torch
    >>> from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIForECGClassification
    >>> ecg = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 37]}
    >>> model = ESIForECGClassification(ESIConfig(ecg_config=ecg, num_labels=5))
    >>> found = attribute(model, ESIFeatureExtractor(), torch.randn(12, 5000), 3, sampling_rate=500,
    ...                   leads="I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split())
    >>> found.values.shape, found.target
    ((12, 10), 'LABEL_3')
    """
    feature_extractor = getattr(processor, "feature_extractor", processor)
    _check_options(method, window, feature_extractor.sampling_rate, num_steps, batch_size)
    inputs = feature_extractor(signal, sampling_rate=sampling_rate, leads=leads, device=_device_of(model))
    input_values, lead_mask = inputs["input_values"], inputs["lead_mask"]
    if len(input_values) != 1:
        raise ValueError(f"signal: expected one record, got {len(input_values)}: call attribute for each.")
    sample_mask = inputs.get("sample_mask")
    num_real = input_values.shape[-1] if sample_mask is None else int(sample_mask.sum())
    edges = _edges(num_real, window * feature_extractor.sampling_rate)
    reference = _lead_means(input_values, num_real)
    with _evaluating(model):
        score_of, name = _scorer(model, processor, target, lead_mask, sample_mask)
        with torch.no_grad():
            score = score_of(input_values).item()
        if method == "occlusion":
            values = _occlude(score_of, input_values, reference, edges, batch_size)
        else:
            steps = torch.ones(1) if method == "gradient" else (torch.arange(num_steps) + 0.5) / num_steps
            values = _follow_gradient(score_of, input_values, reference, edges, steps, batch_size)
    values[~lead_mask[0].cpu().numpy()] = np.nan
    duration = num_real / feature_extractor.sampling_rate
    return Attribution(values, tuple(feature_extractor.leads), float(window), duration, name, score, method)


# ----- the score -----------------------------------------------------------------------------------------------------


def _scorer(
    model: nn.Module, processor: Any, target: str | int, lead_mask: Tensor, sample_mask: Tensor | None
) -> tuple[Scorer, str]:
    """`input_values (B, 12, S)` of variants of one record to scores `(B,)`, and the target's name."""

    def masks(num_records: int) -> dict[str, Tensor | None]:
        given = {"lead_mask": lead_mask, "sample_mask": sample_mask}
        return {key: None if mask is None else mask.expand(num_records, -1) for key, mask in given.items()}

    if hasattr(model, "get_text_features"):
        text_embeds = _embed_sentence(model, processor, target)

        def score_of(input_values: Tensor) -> Tensor:
            ecg_embeds = model.get_ecg_features(input_values, **masks(len(input_values)))
            return model.get_logit_scale().detach() * (ecg_embeds @ text_embeds)

        return score_of, target
    label, name = _find_label(model, target)
    return lambda input_values: model(input_values, **masks(len(input_values))).logits[:, label], name


@torch.no_grad()
def _embed_sentence(model: nn.Module, processor: Any, target: str | int) -> Tensor:
    """`(P,)`."""
    if not isinstance(target, str) or not target.strip():
        raise ValueError(f"target: expected a sentence for a model of ECGs and texts, got {target!r}.")
    if getattr(processor, "tokenizer", None) is None:
        raise ValueError(f"processor: expected an ESIProcessor with its tokenizer, got {type(processor).__name__}.")
    tokens = processor(text=[target]).to(_device_of(model))
    return model.get_text_features(tokens["input_ids"], tokens["attention_mask"])[0]


def _find_label(model: nn.Module, target: str | int) -> tuple[int, str]:
    """Number and name of a classifier's label."""
    names: Mapping[int, str] = model.config.id2label
    number = {name: i for i, name in names.items()}.get(target) if isinstance(target, str) else target
    if isinstance(number, bool) or number not in names:
        known = ", ".join(f"{i} {name}" for i, name in names.items())
        raise ValueError(f"target: expected a label's number or name ({known}), got {target!r}.")
    return number, names[number]


# ----- the methods ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def _occlude(
    score_of: Scorer, input_values: Tensor, reference: Tensor, edges: list[int], batch_size: int
) -> np.ndarray:
    """Score minus the score with each window of each lead at its mean, `(num_leads, num_windows)`."""
    num_leads, num_windows = input_values.shape[1], len(edges) - 1
    places = [(lead, number) for lead in range(num_leads) for number in range(num_windows)]
    scores = []
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        changed = input_values.repeat(len(chosen), 1, 1)
        for row, (lead, number) in enumerate(chosen):
            changed[row, lead, edges[number] : edges[number + 1]] = reference[0, lead, 0]
        scores.append(score_of(changed))
    without = torch.cat(scores).cpu().double().reshape(num_leads, num_windows)
    return (score_of(input_values).cpu().double() - without).numpy()


def _follow_gradient(
    score_of: Scorer,
    input_values: Tensor,
    reference: Tensor,
    edges: list[int],
    steps: Tensor,
    batch_size: int,
) -> np.ndarray:
    """Mean gradient at `steps` (0 to 1) of the way from reference to input, times the way, summed in each window."""
    way = input_values - reference
    total = torch.zeros(way.shape[1:], dtype=torch.float64)  # on the CPU: not every device has float64
    for some in steps.to(way.device).split(batch_size):
        at = (reference + some[:, None, None] * way).requires_grad_()
        with torch.enable_grad():
            total += torch.autograd.grad(score_of(at).sum(), at)[0].sum(dim=0).cpu()
    product = (total / len(steps) * way[0].cpu()).numpy()  # (leads, samples)
    return np.add.reduceat(product[:, : edges[-1]], edges[:-1], axis=1)


# ----- parts ---------------------------------------------------------------------------------------------------------


def _edges(num_samples: int, window: float) -> list[int]:
    """The sample at which each window begins, and the end."""
    num_windows = max(1, math.ceil(num_samples / window - 1e-9))
    return [round(number * window) for number in range(num_windows)] + [num_samples]


def _lead_means(input_values: Tensor, num_real: int) -> Tensor:
    """`(1, 12, S)`: the mean of each lead on its recorded samples; the padding stays as it is."""
    reference = input_values.clone()
    reference[..., :num_real] = input_values[..., :num_real].mean(dim=-1, keepdim=True)
    return reference


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


def _check_options(method: str, window: float, sampling_rate: float, num_steps: int, batch_size: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    if not (math.isfinite(window) and window * sampling_rate >= 1):
        raise ValueError(f"window: expected at least one sample, {1 / sampling_rate:g} s, got {window!r} s.")
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value!r}.")
