"""Signs of life and of death in a training: speed, spread of the embeddings, collapse, numbers that are none."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from modeling_esi.configuration_esi import ESIConfig
from modeling_esi.modeling_esi import ESIModel

from .batches import StepBatch, TrainingOrder

T = TypeVar("T")
logger = logging.getLogger(__name__)

LOSSES = ("loss", "contrastive_loss", "caption_loss")
ROWS_OF_SPREAD = 256  # embeddings, the last ones, over which their effective dimension is measured
GUESSING = 0.01  # a contrastive loss this near to ln(batch), relatively, tells pairs apart no better than chance
CHANCE_AUROC = 0.02  # a macro AUROC this near to 0.5


def effective_dimension(embeds: torch.Tensor) -> float:
    """In how many directions embeddings `(N, P)` spread: exp of the entropy of their covariance's eigenvalues.

    The eigenvalues, divided by their sum, are taken as probabilities. Equal spread in k directions gives k; all
    embeddings in one point give 0. At most min(N - 1, P). Roy and Vetterli, "The effective rank", EUSIPCO 2007; as a
    sign of collapse in RankMe, https://arxiv.org/abs/2210.02885.

    >>> effective_dimension(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    2.0
    """
    embeds = embeds.detach().double().cpu()
    if not torch.isfinite(embeds).all():
        return math.nan
    variances = torch.linalg.svdvals(embeds - embeds.mean(dim=0)).square()
    if variances.sum() <= 1e-12 * embeds.square().sum():
        return 0.0
    shares = variances / variances.sum()
    return round(math.exp(torch.special.entr(shares).sum().item()), 6)


def memory() -> dict[str, float]:
    """GiB of this process, and on a GPU the most that tensors took there since its start."""
    figures = {"memory_gib": psutil.Process().memory_info().rss / 2**30}
    if torch.cuda.is_available():
        figures["device_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return figures


class StepMeter:
    """What is measured between two logged steps. Nothing is asked of the device before `figures`."""

    def __init__(self) -> None:
        self._embeds: dict[str, deque[torch.Tensor]] = {"ecg": deque(), "text": deque()}
        self.restart()

    def restart(self) -> None:
        """Forget what was counted; the clock starts now."""
        self._start = time.perf_counter()
        self._waited = 0.0
        self._steps = self._records = 0
        self._last: dict[str, torch.Tensor] = {}
        self._sums: dict[str, torch.Tensor] = {}

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; counts how long a step stood still until its records had been read."""
        iterator, end = iter(batches), object()
        while True:
            start = time.perf_counter()
            batch = next(iterator, end)
            self._waited += time.perf_counter() - start
            if batch is end:
                return
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no step: validation, a checkpoint."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def add(self, inputs: Mapping[str, torch.Tensor], output: Mapping[str, Any], grad_norm: torch.Tensor) -> None:
        """Take in a step of this process: what entered the model, and what it gave."""
        self._steps += 1
        self._records += len(inputs["input_values"])
        self._last = {name: output[name] for name in LOSSES if output.get(name) is not None} | {"grad_norm": grad_norm}
        sums = {"tokens": inputs["attention_mask"].sum(), "mean_contrastive_loss": output["contrastive_loss"]}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + _whole(value).float()
        for side, kept in self._embeds.items():
            kept.append(output[f"{side}_embeds"].detach())
            while sum(map(len, kept)) - len(kept[0]) >= ROWS_OF_SPREAD:
                kept.popleft()

    def figures(self, model: ESIModel, accelerator: Accelerator) -> dict[str, float]:
        """Losses and gradient norm of the last step, over all processes, and what the steps since the last call took.

        `mean_contrastive_loss` is over these steps. `model` gives its logit scale. Every process must call it.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        values = {name: _whole(value).float() for name, value in {**self._last, **self._sums}.items()}
        means = accelerator.reduce(torch.stack(list(values.values())), "mean").tolist()
        figures = dict(zip(values, means, strict=True))
        world, num_tokens = accelerator.num_processes, figures.pop("tokens")
        figures["mean_contrastive_loss"] /= self._steps
        figures |= {
            "records_per_second": self._records * world / seconds,
            "tokens_per_second": num_tokens * world / seconds,
            "step_seconds": seconds / self._steps,
            "data_wait_share": min(1.0, self._waited / seconds),
            "logit_scale": _whole(model.get_logit_scale()).item(),
        }
        if accelerator.is_main_process:
            figures |= {f"{side}_effective_dimension": effective_dimension(torch.cat(list(kept)).float())
                        for side, kept in self._embeds.items()} | memory()  # fmt: skip
        self.restart()
        return figures


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Put together what is spread over processes (FSDP)."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class CollapseWatch:
    """Warns, once for each sign, of a training that has learnt nothing or forgotten it.

    Args:
        contrast_size: records among which the contrastive loss tells pairs apart: those of all processes, or of one.
        warmup_steps: of the schedule, before which nothing is expected.
    """

    def __init__(self, contrast_size: int, warmup_steps: float) -> None:
        self._guessing = math.log(contrast_size)
        self._warmup_steps = warmup_steps
        self._num_chance = 0
        self._told: set[str] = set()

    def look_at_loss(self, contrastive_loss: float, schedule_step: float) -> None:
        """Compare a mean contrastive loss with ln(batch), which guessing gives."""
        is_chance = abs(contrastive_loss - self._guessing) <= GUESSING * self._guessing
        if self._guessing and schedule_step >= self._warmup_steps and is_chance:
            self._tell(
                "loss",
                "Collapse? The contrastive loss is %.3f after warm-up; guessing gives ln(%d) = %.3f. Try a lower --lr, "
                "a longer warm-up, and look at the signals (python -m datasets_scripts report).",
                contrastive_loss,
                round(math.exp(self._guessing)),
                self._guessing,
            )

    def look_at_validation(self, results: Mapping[str, Any]) -> None:
        """Compare the macro AUROC of zero-shot with 0.5, which chance gives; twice in a row counts."""
        value = next((value for name, value in results.items() if name.endswith("/macro_auroc")), None)
        is_chance = isinstance(value, float) and abs(value - 0.5) <= CHANCE_AUROC + 1e-9
        self._num_chance = self._num_chance + 1 if is_chance else 0
        if self._num_chance >= 2:
            self._tell("auroc", "Collapse? Zero-shot macro AUROC is %.3f, as by chance, in two validations.", value)

    def _tell(self, sign: str, message: str, *values: Any) -> None:
        if sign not in self._told:
            self._told.add(sign)
            logger.warning(message, *values)


def is_broken(loss: torch.Tensor, grad_norm: torch.Tensor, scales_loss: bool) -> torch.Tensor:
    """Whether a step's loss, or the norm of its gradients, is not finite: boolean scalar, on its device.

    With a loss scaler (fp16) infinite gradients are usual: it leaves the step out and scales less.
    """
    broken = ~torch.isfinite(_whole(loss))
    return broken if scales_loss else broken | ~torch.isfinite(_whole(grad_norm))


def stop_at_broken_step(step: StepBatch, loss: torch.Tensor, output_dir: Path, accelerator: Accelerator) -> NoReturn:
    """End, on all processes, and leave `run/broken-step-N.json`: for each process what it read, and its loss."""
    number = step.position.step + 1
    path = output_dir / "run" / f"broken-step-{number}.json"
    value = _whole(loss).item()
    told = {"loss": value if math.isfinite(value) else str(value), "record_ids": step.record_ids(), "texts": step.texts}
    processes = gather_object([told])
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"step": number, "processes": processes}, indent=1))
    accelerator.end_training()
    message = (
        f"Step {number}: the loss or its gradients are not finite. Its records are in {path}. The last checkpoint is "
        "from before. Look at these signals; or try a lower --lr, or --mixed_precision bf16 instead of fp16."
    )
    sys.exit(message if accelerator.is_main_process else 1)


def contrast_size(config: ESIConfig, order: TrainingOrder) -> int:
    """Among how many records the contrastive loss chooses; 1 for the sigmoid loss, which does not choose."""
    if getattr(config, "contrastive_loss_type", "softmax") == "sigmoid":
        return 1
    return order.per_step if config.negatives == "global" else order.batch_size
