"""A prepared data set, from the Hub or a folder, row group by row group: for machines without room for a copy.

The order of an epoch is fixed before anything is read. Row groups are permuted by (seed, epoch) and gathered into
blocks of about `block_size` rows; the rows of a block are permuted together. Laid end to end, the blocks are one long
sequence of all rows, the same for any number of ranks; rank r of W reads the r-th of W equal parts of it. So ranks are
disjoint and complete, differ by one row at most, and only blocks at the ends of a part are read by two of them.

There is no shuffle buffer, whose rows a resumed run would lose: the state is a place in the sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.iterable_dataset import ArrowExamplesIterable

from datasets_scripts.preparation.hub_repository import MANIFEST_FILE, DatasetRepository, hub_errors, is_repository
from datasets_scripts.preparation.prepare import digest_of, read_manifest
from datasets_scripts.preparation.shards import Layout
from datasets_scripts.sources import check_split

BLOCK_SIZE = 1024  # rows that are mixed: 123 MB of int16 for 12 leads of 10 s at 500 Hz; two blocks at most are held


class RowGroup(NamedTuple):
    """Rows that are read together: the `number`-th row group (Parquet) or record batch (Arrow) of a shard."""

    file: str
    number: int
    num_rows: int


class Piece(NamedTuple):
    """What one rank reads of a block: `rows[start:stop]`, where rows are its row groups' rows, permuted by `seed`."""

    row_groups: tuple[RowGroup, ...]
    seed: tuple[int, ...]
    start: int
    stop: int


def stream_ecg_dataset(
    path_or_repository: str | PathLike[str],
    split: str = "train",
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    block_size: int = BLOCK_SIZE,
    token: str | None = None,
    revision: str | None = None,
) -> datasets.IterableDataset:
    """The rows of a split, shuffled, as an `IterableDataset` that holds a block of them, or two at a change of blocks.

    Rows are those of `load_ecg_dataset`; `with_format("arrow")` gives tables without making Python numbers of samples.
    `set_epoch(e)` gives the order of another epoch, the same that `epoch=e` gives. `state_dict` and `load_state_dict`
    resume at the very next row, also in another process, if the arguments are the same; give the state's own epoch:

        stream = stream_ecg_dataset(name, seed=0, epoch=state["epoch"])
        stream.load_state_dict(state)

    For several processes give each its `rank` and the `world_size`. (`split_dataset_by_node` on the whole stream is
    right, too, but where blocks cannot be dealt out evenly it lets every process read everything.) The workers of a
    `DataLoader` share the blocks, so that one downloads while another is used.

    Args:
        path_or_repository: a prepared folder, a downloaded copy of a pushed one, or the "name/repository" of one.
        split: `"train"`, `"validation"` or `"test"`.
        seed: of the order.
        epoch: which pass over the data.
        rank, world_size: which process this is, of how many.
        block_size: about how many rows are mixed.
        token, revision: for a repository: who reads it, and which branch, tag or commit (default: the newest, which is
            found once: a later push does not disturb a running stream; to resume, give the same commit).

    Raises:
        ValueError: for a split, rank, block size or epoch that makes no sense.
        FileNotFoundError, PermissionError, ConnectionError: where there is no such data set, or it cannot be read.
    """
    _check_numbers(split, rank, world_size, block_size, epoch)
    reader, shards = _open(path_or_repository, revision, token)
    shards = [shard for shard in shards if shard["split"] == split and shard["num_rows"]]
    if not shards:
        raise ValueError(f"{path_or_repository}: expected records in the split {split!r}, got none")
    row_groups = [group for shard in shards for group in reader.row_groups(shard)]
    order = Order(tuple(row_groups), seed, rank, world_size, block_size, digest_of(shards))
    info = datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(reader.layout.schema))
    stream = datasets.IterableDataset(_ECGRows(reader, order), info=info, split=datasets.Split(split))
    stream.set_epoch(epoch)
    stream._prepare_ex_iterable_for_iteration()  # or the state of a stream that was not begun would tell epoch 0
    return stream


def _check_numbers(split: str, rank: int, world_size: int, block_size: int, epoch: int) -> None:
    if split is None:
        raise ValueError("split: expected one of the splits, got None: stream them one after the other")
    check_split(split)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: expected 0 <= rank < world_size={world_size}, got {rank}")
    if block_size < 1:
        raise ValueError(f"block_size: expected at least 1 row, got {block_size}")
    if epoch < 0:
        raise ValueError(f"epoch: expected 0 or more, got {epoch}")


# ----- the order -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Which rows a rank reads, in which order: a pure function of row groups, seed, rank and epoch.

    `shards` is a digest of what the row groups hold.
    """

    row_groups: tuple[RowGroup, ...]
    seed: int
    rank: int = 0
    world_size: int = 1
    block_size: int = BLOCK_SIZE
    shards: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What a state must have in common with the stream that goes on from it."""
        return {name: value for name, value in vars(self).items() if name != "row_groups"}

    def pieces(self, epoch_key: int) -> list[Piece]:
        """The rank's part of the sequence of an epoch."""
        blocks = self._blocks(epoch_key)
        ends = np.cumsum([sum(group.num_rows for group in block) for block in blocks]).tolist()
        first, last = (ends[-1] * rank // self.world_size for rank in (self.rank, self.rank + 1))
        pieces = []
        for number, (block, begin, end) in enumerate(zip(blocks, [0, *ends], ends, strict=False)):
            start, stop = max(first, begin) - begin, min(last, end) - begin
            if start < stop:
                pieces.append(Piece(block, (self.seed, epoch_key, 1, number), start, stop))
        return pieces

    def _blocks(self, epoch_key: int) -> list[tuple[RowGroup, ...]]:
        """Row groups in a random order, gathered until a block has its size."""
        blocks: list[list[RowGroup]] = []
        room = 0
        for index in np.random.default_rng((self.seed, epoch_key, 0)).permutation(len(self.row_groups)):
            if room <= 0:
                blocks.append([])
                room = self.block_size
            blocks[-1].append(self.row_groups[index])
            room -= self.row_groups[index].num_rows
        return [tuple(block) for block in blocks]


class _ECGRows(ArrowExamplesIterable):
    """The pieces of an order as the library's iterable: each piece is one of its shards, each row one of its tables."""

    def __init__(self, reader: _Reader, order: Order, epoch_key: int = 0) -> None:
        super().__init__(_read_pieces, {"pieces": order.pieces(epoch_key), "reader": reader})
        self.reader, self.order = reader, order

    def _init_state_dict(self) -> dict[str, Any]:
        super()._init_state_dict()
        self._state_dict["order"] = self.order.to_dict()
        return self._state_dict

    def _iter_arrow(self) -> Iterator[tuple[str, pa.Table]]:
        self._check_state()
        yield from super()._iter_arrow()

    def _check_state(self) -> None:
        state = (self._state_dict or {}).get("order", {})
        changed = [f"{name}: {state[name]!r} there, {value!r} now" for name, value in self.order.to_dict().items()
                   if state and state[name] != value]  # fmt: skip
        if changed:
            raise ValueError(f"state: expected one of this very stream, got one of another ({'; '.join(changed)})")

    def shuffle_data_sources(self, generator: np.random.Generator) -> _ECGRows:
        """Another epoch: the library calls this with a generator that depends on the epoch alone."""
        return _ECGRows(self.reader, self.order, int(deepcopy(generator).integers(1, 2**63)))


def _read_pieces(pieces: Sequence[Piece], reader: _Reader) -> Iterator[tuple[str, pa.Table]]:
    """The rows of pieces as tables of one row, which share the memory of their block."""
    for piece in pieces:
        block = pa.concat_tables([reader.read(group) for group in piece.row_groups])
        rows = np.random.default_rng(piece.seed).permutation(len(block))
        for row in rows[piece.start : piece.stop].tolist():
            yield f"{piece.seed[-1]}_{row}", block.slice(row, 1)


# ----- reading -------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads row groups of the shards of a data set; all of them in one layout. It can be sent to other processes."""

    def __init__(self, place: Path | DatasetRepository, layout: Layout) -> None:
        self.place, self.layout = place, layout

    def row_groups(self, shard: Mapping[str, Any]) -> list[RowGroup]:
        """The row groups of a shard."""
        raise NotImplementedError

    def read(self, group: RowGroup) -> pa.Table:
        """The rows of a row group."""
        raise NotImplementedError


class _ArrowReader(_Reader):
    """Record batches of memory-mapped Arrow streams in a folder; what was mapped last stays open."""

    _file, _batches = "", ()

    def row_groups(self, shard: Mapping[str, Any]) -> list[RowGroup]:
        return [RowGroup(shard["file"], number, len(b)) for number, b in enumerate(self._mapped(shard["file"]))]

    def read(self, group: RowGroup) -> pa.Table:
        return pa.Table.from_batches([self._mapped(group.file)[group.number]]).cast(self.layout.schema)

    def _mapped(self, file: str) -> Sequence[pa.RecordBatch]:
        if file != self._file:
            self._file = file
            self._batches = pa.ipc.open_stream(pa.memory_map(str(self.place / file))).read_all().to_batches()
        return self._batches

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "layout": self.layout}


class _ParquetReader(_Reader):
    """Row groups of Parquet files, in a folder or a repository: of each file the footer is read once, and kept."""

    def __init__(self, place: Path | DatasetRepository, layout: Layout) -> None:
        super().__init__(place, layout)
        self._footers: dict[str, bytes] = {}  # as bytes a tenth of what they take when parsed

    def row_groups(self, shard: Mapping[str, Any]) -> list[RowGroup]:
        return [RowGroup(shard["file"], number, size) for number, size in enumerate(shard["row_groups"])]

    def read(self, group: RowGroup) -> pa.Table:
        name = self.place.name
        with hub_errors(f"read {name}", "Resume from the last state."), self._source(group.file) as source:
            footer = self._footer(group.file, source)
            file = pq.ParquetFile(source, metadata=footer, pre_buffer=True)  # all columns in one request
            return file.read_row_group(group.number, use_threads=False).cast(self.layout.schema)

    def _source(self, file: str) -> IO[bytes]:
        return (self.place / file).open("rb") if isinstance(self.place, Path) else self.place.open(file)

    def _footer(self, file: str, source: IO[bytes]) -> pq.FileMetaData:
        if file not in self._footers:
            copy = pa.BufferOutputStream()
            pq.read_metadata(source).write_metadata_file(copy)
            self._footers[file] = copy.getvalue().to_pybytes()
        return pq.read_metadata(pa.BufferReader(self._footers[file]))


def _open(
    path_or_repository: str | PathLike[str], revision: str | None, token: str | None
) -> tuple[_Reader, list[dict[str, Any]]]:
    """What reads the data set's shards, and what its manifest says of them."""
    place: Path | DatasetRepository = Path(path_or_repository)
    if is_repository(path_or_repository):
        place = DatasetRepository.find(str(path_or_repository), revision, token)
        shards = place.read_json(MANIFEST_FILE)["shards"]
    else:
        shards = read_manifest(place)["shards"]
    layouts = {Layout(*shard["layout"]) for shard in shards if shard["num_rows"]} or {Layout("int16", None)}
    layout = layouts.pop() if len(layouts) == 1 else Layout(layouts.pop().dtype, None)
    in_parquet = all(shard["file"].endswith(".parquet") for shard in shards)
    return (_ParquetReader(place, layout) if in_parquet else _ArrowReader(place, layout)), shards
