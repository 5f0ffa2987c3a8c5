"""What a model says of a recording: scores of sentences, a report, recordings like it, what raised a score."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import nn
from transformers import pipeline

import modeling_esi  # noqa: F401  registers the pipelines
from datasets_scripts.records import ECGRecord
from modeling_esi.attribution import attribute
from modeling_esi.evaluation.context import load_model
from modeling_esi.evaluation.embedding import embed_texts
from modeling_esi.pipeline_esi import can_write
from modeling_esi.plotting import plot_ecg

from .archives import Archive, IndexArchive, Neighbour, SyntheticArchive

MAX_LABELS = 30
MAX_LABEL_LENGTH = 200  # characters
WRITING_SECONDS = 20.0
PAGE_DPI = 150
MARGIN = 12  # pixels
MAX_SECONDS_DRAWN = 60.0  # what fits on a page


@dataclass(frozen=True)
class LabelScore:
    """How well a label fits a recording.

    Attributes:
        label: as it was typed.
        similarity: cosine of the embeddings of ECG and sentence.
        share_below: share of the recordings to compare with that the sentence fits less well than this one.
        share_of_all: softmax over the labels, where exactly one is taken to be true; else None.
    """

    label: str
    similarity: float
    share_below: float
    share_of_all: float | None


class ECGAnswers:
    """A model with the recordings that others are compared with.

    Args:
        model, processor: an `ESIModel` and its `ESIProcessor`.
        archive: recordings to compare with.
        name: what the model is called.
        template: the sentence of a label, with `{}` where the label goes.
    """

    def __init__(
        self, model: nn.Module, processor: Any, archive: Archive, name: str = "model", template: str = "{}."
    ) -> None:
        self.archive, self.name, self.template = archive, name, template
        self._model, self._processor = model, processor
        self._zero_shot = pipeline("zero-shot-ecg-classification", model=model, processor=processor)
        self._writer = pipeline("ecg-to-text", model=model, processor=processor) if can_write(model) else None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        template: str = "{}.",
    ) -> ECGAnswers:
        """By the model's folder or Hub name, and the folder of an index; without one, beside synthetic recordings.

        Raises OSError or ValueError where they cannot be read, do not belong together, or the model compares no texts.
        """
        loaded, processor = load_model(model, device)
        name = os.path.basename(os.path.normpath(model)) if os.path.isdir(model) else str(model)
        archive = SyntheticArchive(loaded, processor) if index is None else IndexArchive(index, loaded, processor)
        return cls(loaded, processor, archive, name, template)

    @property
    def duration(self) -> float:
        """Seconds that the model reads at a time."""
        return float(self._processor.feature_extractor.duration)

    @property
    def sampling_rate(self) -> float:
        """Hz at which the model reads."""
        return float(self._processor.feature_extractor.sampling_rate)

    @property
    def writes(self) -> bool:
        """Whether it writes reports."""
        return self._writer is not None

    def scores(
        self, record: ECGRecord, labels: Sequence[str], template: str | None = None, one_is_true: bool = False
    ) -> list[LabelScore]:
        """Each label's score, best first.

        Args:
            record: no longer than `duration`; see `part_of`.
            labels: up to 30 phrases.
            template: the sentence of a label; None: the one that was set.
            one_is_true: also share one whole among the labels.

        Raises:
            ValueError: for labels or a template that are none, or a recording that the door refuses.
        """
        template = _check_template(self.template if template is None else template)
        labels = _check_labels(labels)
        found = self._zero_shot(record, labels, hypothesis_template=template, multi_label=not one_is_true)
        similarity = {result["label"]: result["similarity"] for result in found}
        score = {result["label"]: result["score"] for result in found}
        below = self._shares_below([template.replace("{}", label) for label in labels], [*map(similarity.get, labels)])
        results = [
            LabelScore(label, similarity[label], share, score[label] if one_is_true else None)
            for label, share in zip(labels, below, strict=True)
        ]
        by = (lambda result: result.share_of_all) if one_is_true else (lambda r: (r.share_below, r.similarity))
        return sorted(results, key=by, reverse=True)

    def report(self, record: ECGRecord) -> str:
        """A report in the model's words. Raises ValueError for a model without decoder, or a recording it refuses."""
        if self._writer is None:
            raise ValueError("This model has no decoder: it writes no reports.")
        return self._writer(record, max_time=WRITING_SECONDS)[0]["generated_text"].strip()

    def nearest(self, record: ECGRecord, k: int = 5) -> list[Neighbour]:
        """The nearest recordings, best first. Raises ValueError for a recording that the door refuses."""
        return self.archive.nearest(record, k)

    def attribution_page(self, record: ECGRecord, label: str, template: str | None = None) -> bytes:
        """The page with what raised a label's score, as PNG. Raises ValueError as `scores` does."""
        template = _check_template(self.template if template is None else template)
        sentence = template.replace("{}", _check_labels([label])[0])
        found = attribute(self._model, self._processor, record, sentence)
        return _png(plot_ecg(record, attribution=found, duration=min(self.duration, MAX_SECONDS_DRAWN)))

    def page(self, record: ECGRecord, start: float = 0.0) -> bytes:
        """The page of the seconds that the model reads from `start` on, as PNG. ValueError for a start behind the end.

        `record` is the whole recording: a lead's line lies on its median.
        """
        return _png(plot_ecg(record, start=start, duration=min(self.duration, MAX_SECONDS_DRAWN)))

    @cached_property
    def _compared_with(self) -> np.ndarray:
        return self.archive.sample()

    def _shares_below(self, sentences: list[str], similarity: list[float]) -> list[float]:
        texts = embed_texts(self._model, self._processor, sentences)
        return (self._compared_with @ texts.T < np.asarray(similarity)).mean(axis=0).tolist()


def part_of(record: ECGRecord, start: float, duration: float) -> ECGRecord:
    """The seconds from `start` on, at most `duration`; near the end, the last `duration`.

    >>> part_of(ECGRecord(np.zeros((1, 700)), ("I",), 100), start=5, duration=3).num_samples
    300
    """
    length = min(round(duration * record.sampling_rate), record.num_samples)
    first = max(0, min(round(start * record.sampling_rate), record.num_samples - length))
    if record.digital is not None:
        return record.with_metadata(signal=None, digital=record.digital[:, first : first + length])
    return dataclasses.replace(record, signal=record.signal[:, first : first + length])


def _png(figure: Figure) -> bytes:
    """A page as PNG, without the margins of A4, which a screen has no use for."""
    figure.set_dpi(PAGE_DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    inked = (pixels[..., :3] < 255).any(axis=-1)
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    buffer = io.BytesIO()
    imsave(buffer, pixels[top : rows[-1] + MARGIN, left : columns[-1] + MARGIN], format="png", dpi=PAGE_DPI)
    return buffer.getvalue()


def _check_labels(labels: Sequence[str]) -> list[str]:
    kept = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
    longest = max(map(len, kept), default=0)
    if not 1 <= len(kept) <= MAX_LABELS or longest > MAX_LABEL_LENGTH:
        raise ValueError(
            f"Labels: expected 1 to {MAX_LABELS}, one on a line, each of at most {MAX_LABEL_LENGTH} characters, got "
            f"{len(kept)}, the longest of {longest}."
        )
    return kept


def _check_template(template: str) -> str:
    if "{}" not in template or len(template) > MAX_LABEL_LENGTH:
        raise ValueError(f"Sentence: expected {{}} where the label goes, in at most {MAX_LABEL_LENGTH} characters.")
    return template
