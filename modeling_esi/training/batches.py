"""The order of records, a pure function of seed and epoch, and the batches that are read ahead of the step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import augment_text, told_waveforms
from modeling_esi.evaluation.held_out_losses import key_numbers

from .entailment import found_in, said_in, statement_numbers

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Position:
    """How far a training is.

    `step`: optimizer steps done, on which seeds and trackers count. `epoch`, `examples`: records of this epoch's order
    that are done, by all processes together, so that any number of processes can go on from there.
    """

    step: int = 0
    epoch: int = 0
    examples: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class TrainingOrder:
    """Which process reads which record at which step.

    The order of an epoch depends on seed and epoch alone. A step takes `batch_size * num_processes` records of it,
    rank by rank; what is left over at the end of an epoch and does not fill a step is not seen in that epoch.

    Args:
        num_records: of the training split.
        batch_size: records of one process in one step.
        epochs: passes over the training split.
        seed: of the order.
        rank, num_processes: of this process, and of all.

    Raises:
        ValueError: where the records do not fill one step.

    >>> order = TrainingOrder(num_records=7, batch_size=3, epochs=2, seed=0)
    >>> [(position.step, rows) for position, rows in order.steps(Position())]
    [(0, [2, 4, 3]), (1, [6, 5, 0]), (2, [1, 3, 6]), (3, [0, 4, 2])]
    """

    num_records: int
    batch_size: int
    epochs: int
    seed: int
    rank: int = 0
    num_processes: int = 1

    def __post_init__(self) -> None:
        if not self.steps_per_epoch:
            raise ValueError(
                f"--batch_size: {self.num_records} training records do not fill one batch of {self.batch_size} on each "
                f"of {self.num_processes} processes. Give fewer, or more records."
            )

    @property
    def per_step(self) -> int:
        return self.batch_size * self.num_processes

    @property
    def steps_per_epoch(self) -> int:
        return self.num_records // self.per_step

    def after(self, position: Position) -> Position:
        """One step further; the next epoch where this one has no full step left."""
        return self.settled(Position(position.step + 1, position.epoch, position.examples + self.per_step))

    def settled(self, position: Position) -> Position:
        """The same place; the start of the next epoch where what is left of this one does not fill a step."""
        if position.examples + self.per_step <= self.num_records:
            return position
        return Position(position.step, position.epoch + 1, 0)

    def last_step(self, position: Position) -> int:
        """How many steps will have been done at the end, by who goes on from `position`."""
        rest = (self.num_records - position.examples) // self.per_step
        return position.step + rest + (self.epochs - position.epoch - 1) * self.steps_per_epoch

    def schedule_step(self, position: Position) -> float:
        """What the schedule counts: steps of today's size over records, however many processes did them."""
        return position.epoch * self.steps_per_epoch + position.examples / self.per_step

    def steps(self, position: Position) -> Iterator[tuple[Position, list[int]]]:
        """From `position` to the end: where each step stands, and the rows that this process reads for it."""
        position = self.settled(position)
        while position.epoch < self.epochs:
            epoch = position.epoch
            rows = np.random.default_rng([self.seed, epoch]).permutation(self.num_records)
            while position.epoch == epoch:
                first = position.examples + self.rank * self.batch_size
                yield position, rows[first : first + self.batch_size].tolist()
                position = self.after(position)


@dataclass
class StepBatch:
    """What one step reads. Every step draws from a seed of its own, so that a resumed run repeats it exactly.

    `text_statements`, `ecg_statements`: what the texts say, and all that is known of the ECGs (`statement_numbers`).
    """

    position: Position
    records: list[ECGRecord]
    texts: list[str]
    text_keys: np.ndarray
    seed: int  # of all that torch draws in this step: noise, dropout
    crop_seed: int
    text_statements: torch.Tensor | None = None
    ecg_statements: torch.Tensor | None = None

    def crop_generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.crop_seed)

    def positives(self) -> dict[str, torch.Tensor]:
        """What decides which texts are true of which ECGs, as `ESIModel.forward` takes it."""
        known = {"text_statements": self.text_statements, "ecg_statements": self.ecg_statements}
        read = {name: value for name, value in known.items() if value is not None}
        return {"text_key": torch.from_numpy(self.text_keys), **read}

    def record_ids(self) -> list[str]:
        return [record.record_id for record in self.records]


@dataclass(frozen=True)
class StepReader:
    """Reads what a step needs: records as views of mapped memory, and their augmented texts.

    Args:
        reader: of the training split.
        text_keys: `(N,)` int64, equal for records with equal statements.
        text_augmentation: vary the texts.
        seed, rank: with the step, what every draw depends on.
        reads_statements: tell what the texts say, and what is known of the ECGs.
        waveforms: descriptions of statements (`told_waveforms`), from which varied texts take theirs.
    """

    reader: RecordReader
    text_keys: np.ndarray
    text_augmentation: bool
    seed: int
    rank: int
    reads_statements: bool = False
    waveforms: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls, train: datasets.Dataset, text_augmentation: bool, seed: int, rank: int, reads_statements: bool
    ) -> StepReader:
        """A reader of the training split, with what has to be known of all its texts."""
        waveforms = told_waveforms(train["text"][:], train["statements"][:]) if text_augmentation else None
        keys = key_numbers(train["text_key"])
        return cls(RecordReader(train), keys, text_augmentation, seed, rank, reads_statements, waveforms)

    def __getitem__(self, step: tuple[Position, Sequence[int]]) -> StepBatch:
        position, rows = step
        rng = np.random.default_rng([self.seed, position.step, self.rank])
        seed = int(rng.integers(2**62))
        records = self.reader.records(rows)
        texts = [record.text for record in records]
        if self.text_augmentation:
            texts = [augment_text(record, rng, waveforms=self.waveforms) for record in records]
        batch = StepBatch(position, records, texts, self.text_keys[rows], seed, int(rng.integers(2**62)))
        if self.reads_statements:
            said = [said_in(record, text) for record, text in zip(records, texts, strict=True)]
            batch.text_statements = statement_numbers(said)
            batch.ecg_statements = statement_numbers([found_in(record) for record in records])
        return batch


def read_ahead(
    reader: StepReader, steps: Iterable[tuple[Position, list[int]]], num_workers: int = 0
) -> Iterator[StepBatch]:
    """The batches of these steps in their order, the next one being read while one is used.

    Args:
        num_workers: processes that read; 0: one thread, which suits mapped memory and few cores.
    """
    if num_workers:  # the loader's own draw comes from a generator of its own: torch's belongs to the step
        yield from DataLoader(reader, sampler=steps, batch_size=None, num_workers=num_workers,
                              collate_fn=_unchanged, generator=torch.Generator())  # fmt: skip
        return
    yield from _one_ahead(reader.__getitem__, iter(steps))


def _one_ahead(read: Callable[[Any], StepBatch], steps: Iterator[Any]) -> Iterator[StepBatch]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead") as thread:
        waiting = [thread.submit(read, step) for step in islice(steps, 1)]
        for step in steps:
            waiting.append(thread.submit(read, step))
            yield waiting.pop(0).result()
        yield from (last.result() for last in waiting)


def _unchanged(batch: StepBatch) -> StepBatch:
    return batch


def records_hash(record_ids: Iterable[str]) -> str:
    """Says whether two lists of records are the same, in the same order."""
    return hashlib.blake2b("\x1f".join(record_ids).encode(), digest_size=16).hexdigest()
