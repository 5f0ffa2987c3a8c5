# Copyright 2026 The esi-ecg authors. Apache-2.0.
"""The door: raw ECG records become `input_values`, by one batched implementation in torch.

    leads by name -> repair or reject -> derive limb leads -> resample -> crop -> scale over what is present -> zero-pad

Training calls `transform` on whole batches, on the device they are on; `__call__` sorts any mixture of records into
such batches. Every step works element by element, or adds up in an order that only the record's length fixes. So on
a CPU a record's `input_values` are the same bits alone and in any batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.utils import TensorType, logging

from .configuration_esi import LEADS
from .lead_names import derive_limb_leads, match_leads, parse_lead_name
from .recordings import SignalBatch, as_number, check_batch, check_rate, read_recordings, stack_recordings
from .resampling import resample

logger = logging.get_logger(__name__)

SCALINGS = ("fixed", "record", "lead", "none")
CROPS = ("start", "random")

CHUNK_VALUES = 2**19  # values worked on at once on a CPU, so that they stay in its cache

_SET_BY_TRANSFORMERS = ("feature_extractor_type", "processor_class", "auto_map", "image_processor_type")


class ESIFeatureExtractor(FeatureExtractionMixin):
    """Turns ECG records into what an ESI model reads. Saved with the weights, as `preprocessor_config.json`.

    Args:
        sampling_rate: rate of the output in Hz.
        duration: length of the output in seconds; longer records are cropped, shorter ones zero-padded at the end.
        leads: order of the twelve leads in the output. The published ESI weights want I II III aVR aVF aVL V1..V6.
        scaling: "fixed" `(clip / scale) * tanh(x / clip)`, x in mV, keeps voltage, so that low voltage and
            hypertrophy can be seen; "record" z-score over all present leads together (ESI, arXiv 2405.19366);
            "lead" z-score of each lead; "none" leaves millivolts.
        fixed_scale_mv: millivolts that become 1 in "fixed".
        fixed_clip_mv: where "fixed" bends, in mV: up to a third of it the scale is straight within 4 %.
        scale_eps: added to the standard deviation in "record" and "lead".
        max_gap: longest run of NaN, in seconds, that is bridged (a straight line between its neighbours; at the ends
            the nearest value). A lead with a longer one counts as missing.
        min_duration: shortest record in seconds; a shorter one is rejected.
        ignore_unknown_leads: leave out channels whose names say nothing, instead of refusing the record. Those known
            to be something else (Frank leads, MLII, respiration) are always left out, with a warning in the log.

    Raises:
        ValueError: for a value that makes no sense.

    >>> import torch
    >>> from modeling_esi.feature_extraction_esi import ESIFeatureExtractor
    >>> feature_extractor = ESIFeatureExtractor(sampling_rate=100, duration=2.0)
    >>> time = torch.arange(500) / 250  # two seconds at 250 Hz
    >>> signal = torch.stack([torch.sin(6.28 * time), torch.cos(6.28 * time)])
    >>> inputs = feature_extractor(signal, sampling_rate=250, leads=["I", "II"])
    >>> inputs["input_values"].shape, inputs["lead_mask"].sum().item()  # six limb leads from two
    (torch.Size([1, 12, 200]), 6)
    """

    model_input_names = ["input_values", "lead_mask", "sample_mask"]

    def __init__(
        self,
        sampling_rate: float = 500,
        duration: float = 10.0,
        leads: Sequence[str] = LEADS,
        scaling: str = "fixed",
        fixed_scale_mv: float = 0.25,
        fixed_clip_mv: float = 10.0,
        scale_eps: float = 1e-6,
        max_gap: float = 0.2,
        min_duration: float = 1.0,
        ignore_unknown_leads: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = [name for name in kwargs if name not in _SET_BY_TRANSFORMERS and not name.startswith("_")]
        if unknown:
            logger.warning(f"ESIFeatureExtractor knows no option {unknown}: kept, without effect.")
        super().__init__(**kwargs)
        self.sampling_rate = check_rate(sampling_rate)
        self.duration = _check_number("duration", duration)
        self.leads = _check_lead_order(leads)
        self.scaling = _check_choice("scaling", scaling, SCALINGS)
        self.fixed_scale_mv = _check_number("fixed_scale_mv", fixed_scale_mv)
        self.fixed_clip_mv = _check_number("fixed_clip_mv", fixed_clip_mv)
        self.scale_eps = _check_number("scale_eps", scale_eps, zero=True)
        self.max_gap = _check_number("max_gap", max_gap, zero=True)
        self.min_duration = _check_number("min_duration", min_duration, zero=True)
        if not isinstance(ignore_unknown_leads, bool):
            raise ValueError(f"ignore_unknown_leads: expected True or False, got {ignore_unknown_leads!r}.")
        self.ignore_unknown_leads = ignore_unknown_leads
        if self.num_samples < 1:
            raise ValueError(
                f"duration: expected at least one sample, got {duration} s at {sampling_rate} Hz: lengthen it."
            )

    @property
    def num_samples(self) -> int:
        """Samples per lead in the output, S."""
        return round(self.duration * self.sampling_rate)

    # ----- any mixture of records ------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        signal: Any,
        sampling_rate: float | Sequence[float] | None = None,
        leads: Sequence[str] | Sequence[Sequence[str]] | None = None,
        unit: str | Sequence[str] = "mV",
        crop: str = "start",
        generator: torch.Generator | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        return_tensors: str | TensorType | None = "pt",
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        """Records, alike or not, to one batch.

        Args:
            signal: one record or a list of them. A record is a `(leads, samples)` array, tensor or nested list, or an
                object or mapping with the fields `signal`, `sampling_rate` and `leads`. A `(B, leads, samples)` array
                is a list of records. NaN marks what was not recorded. Whole numbers are taken as so many units.
                Where it has the fields `digital` (int16), `gain` and `offset`, these count, and its `signal` is not
                asked for: int16 travels to the device, and becomes `(digital - offset) / gain` mV there, missing
                where it is -32768. A stored row will do: a mapping whose `signal` is flat, with `num_samples`.
            sampling_rate: in Hz, one for all or a list of one per record; not needed where the record has it.
            leads: one name per channel in any usual spelling, one list for all or one per record.
            unit: "mV", "uV" (or with a Greek or micro sign), "V" or "nV", one for all or one per record; case counts.
            crop: which part of a longer record: "start" or "random" (training).
            generator: CPU generator of the random crops. Each record draws one number, in order.
            augment: applied in training to cropped signals `(B, 12, samples)` in mV, before they are scaled.
            return_tensors: "pt" or "np".
            device: where to compute and leave the result; where the first tensor is, by default.

        Returns:
            `input_values (B, 12, S)` float32, exactly 0 in masked leads and padding; `lead_mask (B, 12)` bool, True
            where the lead was measured or derived; where anything was padded, `sample_mask (B, S)` bool, True on
            recorded samples.

        Raises:
            ValueError: for what cannot be understood (unit, rate, names, shape), and for rejected records (all flat,
                all NaN, infinite, too short, no usable lead), with their numbers in the list.
        """
        _check_choice("crop", crop, CROPS)
        as_numpy = _wants_numpy(return_tensors)
        recordings = read_recordings(signal, sampling_rate, leads, unit, self.ignore_unknown_leads)
        device = torch.device(device) if device is not None else recordings[0].device
        positions = _draw_positions(len(recordings), generator) if crop == "random" else None

        groups: dict[tuple, list[int]] = {}
        for i, recording in enumerate(recordings):
            groups.setdefault(recording.kind, []).append(i)

        values = torch.zeros((len(recordings), len(LEADS), self.num_samples), device=device)
        lead_mask = torch.zeros((len(recordings), len(LEADS)), dtype=torch.bool, device=device)
        recorded = [0] * len(recordings)
        rejects: dict[int, str] = {}
        for (rate, names, *_), members in groups.items():
            batch = stack_recordings([recordings[i] for i in members], device)
            starts = positions[members] if positions is not None else None
            some_values, some_mask, num_real, reasons = self._transform(batch, rate, names, starts, augment)
            values[members, :, :num_real], lead_mask[members] = some_values, some_mask
            for i, reason in zip(members, reasons, strict=True):
                recorded[i] = num_real
                if reason is not None:
                    rejects[i] = reason
        _raise_rejects(rejects)
        features = {"input_values": values, "lead_mask": lead_mask}
        if min(recorded) < self.num_samples:
            clock = torch.arange(self.num_samples, device=device)
            features["sample_mask"] = clock < torch.tensor(recorded, device=device)[:, None]
        if as_numpy:
            features = {name: tensor.cpu().numpy() for name, tensor in features.items()}
        return BatchFeature(features)

    def reject_reason(
        self,
        signal: Any,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str = "mV",
    ) -> str | None:
        """Why `__call__` would refuse this one record, or None where it would not. Raises nothing for bad data."""
        try:
            recordings = read_recordings(signal, sampling_rate, leads, unit, self.ignore_unknown_leads)
        except ValueError as error:
            return str(error).removeprefix("record 0: ")
        if len(recordings) != 1:
            raise ValueError(f"reject_reason: expected one record, got {len(recordings)}: ask for each.")
        recording = recordings[0]
        batch = stack_recordings(recordings, recording.device)
        return self._reject_reasons(batch, recording.sampling_rate, recording.leads)[0]

    # ----- a batch of one shape --------------------------------------------------------------------------------------

    @torch.no_grad()
    def transform(
        self,
        signal: Tensor,
        sampling_rate: float,
        leads: Sequence[str],
        crop: str = "start",
        generator: torch.Generator | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> BatchFeature:
        """What `__call__` does, for a batch of records of one rate, length and list of leads, where it lies.

        Args:
            signal: `(B, leads, samples)`, in mV, any real dtype, any device. Left as it is.
            sampling_rate: in Hz.
            leads: one name per channel.
            crop, generator, augment: as in `__call__`.

        Returns:
            As `__call__`, on the device of `signal`.

        Raises:
            ValueError: as `__call__`.
        """
        _check_choice("crop", crop, CROPS)
        rate, names = check_rate(sampling_rate), check_batch(signal, leads)
        positions = _draw_positions(len(signal), generator) if crop == "random" else None
        values, lead_mask, num_real, reasons = self._transform(SignalBatch(signal), rate, names, positions, augment)
        _raise_rejects({i: reason for i, reason in enumerate(reasons) if reason is not None})
        features = {"input_values": values, "lead_mask": lead_mask}
        if num_real < self.num_samples:
            features["input_values"] = torch.nn.functional.pad(values, (0, self.num_samples - num_real))
            mask = torch.arange(self.num_samples, device=signal.device) < num_real
            features["sample_mask"] = mask.repeat(len(signal), 1)
        return BatchFeature(features)

    @torch.no_grad()
    def reject_reasons(self, signal: Tensor, sampling_rate: float, leads: Sequence[str]) -> list[str | None]:
        """For each record of a batch `(B, leads, samples)` in mV, why `transform` would reject it, or None."""
        return self._reject_reasons(SignalBatch(signal), check_rate(sampling_rate), check_batch(signal, leads))

    def _reject_reasons(self, batch: SignalBatch, rate: float, names: tuple[str, ...]) -> list[str | None]:
        reasons: list[str | None] = []
        for chunk in _chunks(batch):
            reasons += self._arrange_and_repair(chunk.millivolts(), rate, names)[2]
        return reasons

    def _transform(
        self,
        batch: SignalBatch,
        rate: float,
        names: tuple[str, ...],
        positions: Tensor | None,
        augment: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor, Tensor, int, list[str | None]]:
        """`(values (B, 12, real samples), lead mask (B, 12), real samples, reason or None per record)`."""
        results, masks, reasons = [], [], []
        for number, chunk in enumerate(_chunks(batch)):
            values, present, some_reasons = self._arrange_and_repair(chunk.millivolts(), rate, names)
            reasons += some_reasons
            if not bool(present.all()):
                derive_limb_leads(values, present, self.leads)
            values = resample(values, rate, self.sampling_rate)
            start = number * _chunk_size(batch.signal)
            values = self._crop(values, positions[start : start + len(values)] if positions is not None else None)
            if augment is not None:
                values = augment(values).masked_fill(~present[..., None], 0.0)
            results.append(self._scale(values, present))
            masks.append(present)
        return torch.cat(results), torch.cat(masks), results[0].shape[-1], reasons

    def _arrange_and_repair(
        self, signal: Tensor, rate: float, names: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, list[str | None]]:
        """`(values (B, 12, T), present (B, 12), reasons)`: leads in output order, gaps bridged, missing leads zero."""
        num_records, _, num_samples = signal.shape
        matched = match_leads(names, self.ignore_unknown_leads)
        values = torch.zeros((num_records, len(LEADS), num_samples), device=signal.device)
        for channel, lead in enumerate(matched):
            if lead is not None:
                values[:, self.leads.index(lead)] = signal[:, channel]
        if num_samples < self.min_duration * rate:
            reason = f"too short: {num_samples / rate:g} s, expected at least min_duration={self.min_duration:g} s"
            present = torch.zeros((num_records, len(LEADS)), dtype=torch.bool, device=signal.device)
            return values, present, [reason] * num_records

        low, high = torch.aminmax(values, dim=-1)  # NaN where the lead has a NaN
        has_nan = low.isnan()
        infinite = low.isinf() | high.isinf()
        if bool(has_nan.any()):
            gappy = values[has_nan]
            infinite[has_nan] = gappy.isinf().any(dim=-1)
            values[has_nan] = repaired = bridge_gaps(gappy, int(self.max_gap * rate + 1e-6))
            low[has_nan], high[has_nan] = torch.aminmax(repaired, dim=-1)
        present = (low < high) & ~infinite  # a lead that never changes is a dead one
        if not bool(present.all()):
            values.masked_fill_(~present[..., None], 0.0)
        reasons = self._reasons(infinite, low.isnan(), present, [lead for lead in matched if lead is not None])
        return values, present, reasons

    def _reasons(self, infinite: Tensor, gappy: Tensor, present: Tensor, given: list[str]) -> list[str | None]:
        """Why each record is rejected, or None. All `(B, 12)`; `gappy` leads have NaN left after the repair."""
        if bool(present.any(dim=1).all()) and not bool(infinite.any()):
            return [None] * len(present)
        slots = [self.leads.index(lead) for lead in given]
        rows = zip(infinite[:, slots].tolist(), gappy[:, slots].tolist(), present[:, slots].tolist(), strict=True)
        return [self._reason(given, *row) for row in rows]

    def _reason(self, given: list[str], infinite: list[bool], gappy: list[bool], present: list[bool]) -> str | None:
        if any(infinite):
            return f"infinite values in {_named(given, infinite)}"
        if any(present):
            return None
        if all(gappy):
            return f"all NaN, or gaps of NaN longer than max_gap={self.max_gap:g} s, in every lead ({', '.join(given)})"
        if not any(gappy):
            return f"all flat: a constant in every lead ({', '.join(given)})"
        flat = [not gap for gap in gappy]
        return f"no usable lead: {_named(given, flat)} flat, {_named(given, gappy)} with too long gaps of NaN"

    def _crop(self, values: Tensor, positions: Tensor | None) -> Tensor:
        """At most S samples: the first ones, or from `positions (B,)` in [0, 1) on the way to the last start."""
        spare = values.shape[-1] - self.num_samples
        if spare <= 0:
            return values
        if positions is None:
            return values[..., : self.num_samples]
        starts = (positions * (spare + 1)).long().clamp(max=spare).tolist()
        return torch.stack([v[:, start : start + self.num_samples] for v, start in zip(values, starts, strict=True)])

    def _scale(self, values: Tensor, present: Tensor) -> Tensor:
        if self.scaling == "none":
            return values
        if self.scaling == "fixed":
            return torch.tanh(values / self.fixed_clip_mv) * (self.fixed_clip_mv / self.fixed_scale_mv)
        kept = present[..., None]
        count = values.shape[-1] * torch.ones_like(present, dtype=torch.float64)[..., None]  # (B, 12, 1)
        if self.scaling == "record":
            count = values.shape[-1] * present.sum(dim=1).double()[:, None, None]
        values = values.double()
        centred = (values - self._total(values) / count) * kept
        deviation = (self._total(centred * centred) / count).sqrt()
        return (centred / (deviation + self.scale_eps)).float()

    def _total(self, values: Tensor) -> Tensor:
        """Sum over time `(B, 12, 1)` or, for "record", over time and leads `(B, 1, 1)`."""
        total = fold_sum(values)  # (B, 12)
        return total[..., None] if self.scaling == "lead" else fold_sum(total)[:, None, None]


# ----- steps ---------------------------------------------------------------------------------------------------------


def bridge_gaps(signal: Tensor, longest: int) -> Tensor:
    """Bridges runs of NaN of at most `longest` samples by a straight line, at the ends by the nearest value.

    Args:
        signal: `(rows, samples)`.
        longest: in samples.

    Returns:
        The same shape; a row with a longer run, or nothing but NaN, comes back all NaN.
    """
    num_samples = signal.shape[-1]
    clock = torch.arange(num_samples, device=signal.device).expand(signal.shape)
    known = ~signal.isnan()
    before = torch.where(known, clock, -1).cummax(dim=-1).values
    after = torch.where(known, clock, num_samples).flip(-1).cummin(dim=-1).values.flip(-1)
    beyond_repair = ((after - before - 1) * ~known).amax(dim=-1) > longest
    beyond_repair |= ~known.any(dim=-1)

    left = torch.where(before < 0, after, before).clamp(max=num_samples - 1)
    right = torch.where(after >= num_samples, before, after).clamp(min=0)
    left_value, right_value = signal.gather(-1, left), signal.gather(-1, right)
    share = (clock - left) / (right - left).clamp(min=1)
    bridged = torch.where(known, signal, left_value + (right_value - left_value) * share)
    return bridged.masked_fill(beyond_repair[:, None], float("nan"))


def fold_sum(values: Tensor) -> Tensor:
    """Sum over the last axis by folding it in halves, `(..., n) -> (...)`.

    `torch.sum` chooses its order by the shape of the whole tensor, so that a record's last bit would depend on the
    batch it is in; here the order depends on n alone.
    """
    rest = torch.zeros_like(values[..., 0])
    while values.shape[-1] > 1:
        if values.shape[-1] % 2:
            rest = rest + values[..., -1]
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half : 2 * half]
    return values[..., 0] + rest


def _chunk_size(signal: Tensor) -> int:
    if signal.device.type != "cpu":
        return len(signal)
    return max(1, CHUNK_VALUES // max(1, len(LEADS) * signal.shape[-1]))


def _chunks(batch: SignalBatch) -> list[SignalBatch]:
    # a chunk is only worked on apart: no record's result depends on the others
    return batch.split(_chunk_size(batch.signal))


def _draw_positions(num_records: int, generator: torch.Generator | None) -> Tensor:
    """One number in [0, 1) per record, drawn one by one, so that they do not depend on how records are batched."""
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator: expected one on the CPU, got one on {generator.device}: torch.Generator().")
    return torch.stack([torch.rand((), dtype=torch.float64, generator=generator) for _ in range(num_records)])


def _named(names: list[str], flags: list[bool]) -> str:
    return ", ".join(name for name, flag in zip(names, flags, strict=True) if flag)


def _raise_rejects(rejects: dict[int, str]) -> None:
    if rejects:
        listed = "; ".join(f"record {i}: {reason}" for i, reason in sorted(rejects.items()))
        raise ValueError(f"{listed}. Leave such records out: reject_reason tells them beforehand.")


# ----- checks of the options -----------------------------------------------------------------------------------------


def _check_number(name: str, value: Any, zero: bool = False) -> float:
    number = as_number(name, value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name}: expected a {'non-negative' if zero else 'positive'} number, got {value!r}.")
    return number


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")
    return value


def _check_lead_order(leads: Sequence[str]) -> list[str]:
    order = [parse_lead_name(lead) if isinstance(lead, str) else None for lead in leads]
    if sorted(map(str, order)) != sorted(LEADS):
        raise ValueError(f"leads: expected the twelve {', '.join(LEADS)} in some order, got {list(leads)}.")
    return order


def _wants_numpy(return_tensors: str | TensorType | None) -> bool:
    name = return_tensors.value if isinstance(return_tensors, TensorType) else return_tensors
    return _check_choice("return_tensors", name or "pt", ("pt", "np")) == "np"
