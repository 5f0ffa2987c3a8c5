"""The whole ECG encoder with a linear head, trained on labelled records; the best epoch is chosen on validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from datasets_scripts.preparation.record_reader import RecordReader

from ..modeling_esi import ESIForECGClassification
from ..training.schedule import FUSED_ON, Schedule
from .embedding import evaluation_mode
from .layer_decay import parameter_groups
from .metrics import auroc, macro

if TYPE_CHECKING:
    import datasets

CROPS = ("start", "random")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the training records; the best one by validation is taken.
        batch_size: records of a step, at most; the batches of an epoch are as equal as can be.
        lr: of the encoder's last layer, at the peak of the schedule.
        head_lr: of the linear head.
        layer_decay: see `layer_decay.parameter_groups`.
        weight_decay: of matrices.
        warmup_ratio: share of the steps in which the rates rise; then they fall by half a cosine.
        drop_path_rate: of the last block (ConvNeXt V2; XResNet has none).
        crop: part of a record longer than the model's input that training sees: "start" or "random".
        precision: "no" (float32), "bf16" or "fp16", in training; scores are float32.

    Raises:
        ValueError: for values that make no sense.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 5e-4
    head_lr: float = 5e-3
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    drop_path_rate: float = 0.1
    crop: str = "random"
    precision: str = "no"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "head_lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}.")
        for name, known in (("crop", CROPS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio: expected 0 to 1, got {self.warmup_ratio}.")


@dataclass(frozen=True)
class LabelledRecords:
    """Stored rows with `targets (n, C)`, whether a record has a label."""

    dataset: datasets.Dataset
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Choice:
    """What was chosen on validation records.

    Attributes:
        epoch: from 1.
        macro_auroc: of the epoch, over classes with both labels; one half where there is none.
        scores: `(n, C)` of the validation records.
        losses: mean training loss of each epoch.
    """

    epoch: int
    macro_auroc: float
    scores: np.ndarray
    losses: tuple[float, ...]


def new_classifier(
    model: nn.Module, label_names: Sequence[str], drop_path_rate: float = 0.0, seed: int = 0
) -> ESIForECGClassification:
    """A multi-label classifier with a copy of the ECG encoder of `model` and a new head, in evaluation mode.

    Args:
        model: an `ESIModel`, which stays as it is.
        label_names: the C classes; they stand in its configuration as `id2label`.
        drop_path_rate: of the last block in training.
        seed: of the head's weights.
    """
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(label_names))  # num_labels follows
    config.label2id = {name: number for number, name in enumerate(label_names)}
    config.problem_type = "multi_label_classification"
    config.ecg_config.drop_path_rate = drop_path_rate
    device = next(model.parameters()).device
    with _seeded(seed, device):
        classifier = ESIForECGClassification(config)
    classifier.ecg_model.load_state_dict(model.ecg_model.state_dict())
    return classifier.to(device).eval()


def train_classifier(
    classifier: ESIForECGClassification,
    feature_extractor: Any,
    train: LabelledRecords,
    validation: LabelledRecords,
    settings: TrainingSettings,
    seed: int = 0,
    progress: str | None = None,
) -> Choice:
    """Train a classifier in place; it ends with the weights of the epoch that is best on validation records.

    Best is the highest macro AUROC, of equal ones the last. The same seed gives the same weights on one machine's CPU;
    random numbers outside stay as they are.

    Args:
        classifier: from `new_classifier`, on the device to compute on.
        feature_extractor: the model's.
        train, validation: records to learn from, and to choose on.
        settings: how.
        seed: of the order of records, crops and dropped paths.
        progress: name of the progress bar; None: no bar.

    Raises:
        ValueError: without records, or where the training diverges.
    """
    if not len(train) or not len(validation):
        raise ValueError(f"expected training and validation records, got {len(train)} and {len(validation)}.")
    device = next(classifier.parameters()).device
    steps_per_epoch = -(-len(train) // settings.batch_size)
    stepper = _Stepper.of(classifier, settings, steps_per_epoch)
    reader, generator = RecordReader(train.dataset), torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(train.targets).float()
    best, weights, losses = None, {}, []
    with _seeded(seed, device), _progress_bar(progress, settings.epochs * steps_per_epoch) as bar:
        for epoch in range(1, settings.epochs + 1):
            classifier.train()
            total = torch.zeros((), device=device)  # read once an epoch: a GPU need not wait for the program
            for rows in np.array_split(torch.randperm(len(train), generator=generator).numpy(), steps_per_epoch):
                records = reader.records(rows.tolist())
                inputs = feature_extractor(records, device=device, crop=settings.crop, generator=generator)
                total += stepper.step(inputs, targets[rows].to(device)) * len(rows)
                bar.update()
            losses.append(total.item() / len(train))
            scores = class_scores(classifier, feature_extractor, validation.dataset, 2 * settings.batch_size)
            _check_finite(scores, epoch, settings)
            area = mean_auroc(scores, validation.targets)
            bar.set_postfix(loss=losses[-1], validation=area)
            if best is None or area >= best[1]:
                best, weights = (epoch, area, scores), _copy_of(classifier)
    classifier.load_state_dict(weights)
    classifier.eval()
    return Choice(*best, tuple(losses))


def class_scores(
    classifier: ESIForECGClassification, feature_extractor: Any, dataset: datasets.Dataset, batch_size: int = 64
) -> np.ndarray:
    """`(n, C)` float32 logits of records, in their order; no label is needed.

    Args:
        classifier: computes in evaluation mode, and is afterwards in the mode it was in.
        feature_extractor: the model's.
        dataset: stored rows.
        batch_size: records at a time; it does not change the result.
    """
    device, reader, scores = next(classifier.parameters()).device, RecordReader(dataset), []
    with evaluation_mode(classifier):
        for start in range(0, len(dataset), batch_size):
            records = reader.records(range(start, min(start + batch_size, len(dataset))))
            scores.append(classifier(**feature_extractor(records, device=device)).logits.float().cpu().numpy())
    return np.concatenate(scores)


def mean_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Macro AUROC over the classes with both labels; one half where there is none."""
    area = macro(value for value in auroc(scores, targets) if np.isfinite(value))
    return 0.5 if area is None else area


def precision_on(device: str | torch.device) -> str:
    """What suits a device: "bf16" on a GPU that has it, "fp16" on another, "no" elsewhere."""
    if torch.device(device).type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


# ----- steps ---------------------------------------------------------------------------------------------------------


@dataclass
class _Stepper:
    """The classifier with all that a step of its training needs."""

    classifier: ESIForECGClassification
    optimizer: torch.optim.Optimizer
    rates: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    autocast: Callable[[], Any]

    @classmethod
    def of(cls, classifier: ESIForECGClassification, settings: TrainingSettings, steps_per_epoch: int) -> _Stepper:
        groups = parameter_groups(
            classifier, settings.lr, settings.layer_decay, settings.head_lr, settings.weight_decay
        )  # fmt: skip
        device = next(classifier.parameters()).device.type
        optimizer = torch.optim.AdamW(groups, fused=device in FUSED_ON or None)
        schedule = Schedule("cosine", steps_per_epoch, settings.epochs, warmup_ratio=settings.warmup_ratio)
        scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16")

        def autocast() -> torch.autocast:
            dtype = torch.float16 if settings.precision == "fp16" else torch.bfloat16
            return torch.autocast(device, dtype, enabled=settings.precision != "no")

        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
        return cls(classifier, optimizer, rates, scaler, autocast)

    def step(self, inputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """One step; returns its loss."""
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.classifier(**inputs, labels=targets).loss
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.rates.step()
        return loss.detach()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed` inside; outside they go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _copy_of(classifier: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in classifier.state_dict().items()}


def _check_finite(scores: np.ndarray, epoch: int, settings: TrainingSettings) -> None:
    if not np.isfinite(scores).all():
        raise ValueError(
            f"training diverged: scores that are not finite after epoch {epoch}, with lr {settings.lr:g}, head_lr "
            f"{settings.head_lr:g}, precision {settings.precision}: lower the rates, or choose another precision."
        )


def _progress_bar(name: str | None, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=" steps", desc=name, disable=name is None)
