"""An index on disk: passages, BM25 scores, embeddings, and last the manifest that makes it one.

Passages are JSON lines and arrays are `.npy`; no pickle is written or read. The manifest holds the version, the hash of
the corpus, the hash of the vocabulary that makes terms of text, and the hash of every file: an index that is
incomplete, changed, of another version or of another corpus is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.cqa.abbreviations import ABBREVIATIONS
from datasets_scripts.cqa.books import EXTRA
from datasets_scripts.cqa.findings import finding_phrases
from datasets_scripts.cqa.passages import Passage, corpus_hash

VERSION = 1
MANIFEST, PASSAGES, EMBEDDINGS, PROBE, BM25_FOLDER = (
    "manifest.json", "passages.jsonl", "embeddings.npy", "probe.npy", "bm25",
)  # fmt: skip
_REBUILD = "build it anew (python -m datasets_scripts.cqa index)"


class IndexRefused(ValueError):
    """A folder that is no index of this version and corpus; the message says what was expected, got, and what to do."""


@dataclass(frozen=True)
class StoredIndex:
    """What an index holds; `bm25` is a `bm25s.BM25` over the passages in their order.

    `embeddings (N, width)` float16 are by the encoder named `encoder`; `probe (width,)` is its embedding of a fixed
    sentence, by which it is known again. The three are None for an index without embeddings.
    """

    passages: tuple[Passage, ...]
    bm25: Any
    embeddings: np.ndarray | None = None
    probe: np.ndarray | None = None
    encoder: str | None = None


def bm25_class() -> Any:
    """`bm25s.BM25`. Raises ImportError, with what to install, where it is missing."""
    try:
        from bm25s import BM25
    except ImportError as error:
        raise ImportError(f"searching a corpus needs bm25s: {EXTRA}") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets it to DEBUG, past what the program asked for
    return BM25


def save_index(index: StoredIndex, folder: str | os.PathLike[str]) -> None:
    """Writes an index; one that is there already is replaced.

    Raises ValueError for a folder that holds other files than an index.
    """
    root = Path(folder)
    if root.is_dir() and any(root.iterdir()) and not ((root / MANIFEST).exists() or (root / PASSAGES).exists()):
        raise ValueError(f"{root}: expected an empty folder or an index, got other files; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, EMBEDDINGS, PROBE):  # first the manifest: from now on it is no index
        (root / name).unlink(missing_ok=True)
    lines = (json.dumps(asdict(passage), ensure_ascii=True) for passage in index.passages)
    (root / PASSAGES).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    index.bm25.save(root / BM25_FOLDER, show_progress=False)
    if index.embeddings is not None and index.probe is not None:
        np.save(root / EMBEDDINGS, index.embeddings, allow_pickle=False)
        np.save(root / PROBE, index.probe, allow_pickle=False)
    _write_manifest(root, index)


def _write_manifest(root: Path, index: StoredIndex) -> None:
    manifest = {
        "version": VERSION,
        "corpus_hash": corpus_hash(index.passages),
        "vocabulary_hash": vocabulary_hash(),
        "num_passages": len(index.passages),
        "encoder": index.encoder,
        "files": {name: _file_hash(root / name) for name in _file_names(root)},
    }
    part = root / f"{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(part, root / MANIFEST)


def load_index(folder: str | os.PathLike[str], expected_corpus: str | None = None) -> StoredIndex:
    """The index in a folder; `expected_corpus` is the `corpus_hash` that it must have.

    Raises FileNotFoundError where there is none, `IndexRefused` for one that is not whole, of another version, or of
    another corpus; ImportError where bm25s is not installed.
    """
    root = Path(folder)
    manifest = _manifest(root)
    if expected_corpus is not None and manifest["corpus_hash"] != expected_corpus:
        raise IndexRefused(f"{root}: expected an index of the corpus {expected_corpus[:12]}, got one of "
                           f"{str(manifest['corpus_hash'])[:12]}; {_REBUILD}")  # fmt: skip
    for name, expected in manifest["files"].items():
        if name not in _file_names(root) or _file_hash(root / name) != expected:
            raise IndexRefused(f"{root}: {name} is missing or not as it was written; {_REBUILD}")
    with (root / PASSAGES).open(encoding="utf-8") as file:
        passages = tuple(Passage(**json.loads(line)) for line in file)
    if corpus_hash(passages) != manifest["corpus_hash"]:
        raise IndexRefused(f"{root}: the passages are not those of the manifest's corpus_hash; {_REBUILD}")
    embeddings, probe = _array(root, EMBEDDINGS, manifest), _array(root, PROBE, manifest)
    bm25 = bm25_class().load(root / BM25_FOLDER, allow_pickle=False, show_progress=False, backend="numpy")
    rows = {bm25.scores["num_docs"], len(passages)} | ({len(embeddings)} if embeddings is not None else set())
    if len(rows) > 1:
        raise IndexRefused(f"{root}: expected as many rows as passages ({len(passages)}), got {rows}; {_REBUILD}")
    return StoredIndex(passages, bm25, embeddings, probe, manifest["encoder"])


def _manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root}: expected an index with {MANIFEST}, got none; {_REBUILD}") from error
    except ValueError as error:
        raise IndexRefused(f"{root}: {MANIFEST} is no JSON; {_REBUILD}") from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise IndexRefused(f"{root}: expected an index of version {VERSION}, got {version}; {_REBUILD}")
    if manifest.get("vocabulary_hash") != vocabulary_hash():
        raise IndexRefused(f"{root}: was built with another table of findings or abbreviations; {_REBUILD}")
    if missing := {"corpus_hash", "files", "encoder"} - set(manifest):
        raise IndexRefused(f"{root}: {MANIFEST} lacks {', '.join(sorted(missing))}; {_REBUILD}")
    return manifest


def vocabulary_hash() -> str:
    """The SHA-256 of what makes terms of text: names and synonyms of findings in their spelling, and abbreviations."""
    content = json.dumps([sorted(finding_phrases().items()), sorted(ABBREVIATIONS.items())])
    return hashlib.sha256(content.encode()).hexdigest()


def _array(root: Path, name: str, manifest: dict[str, Any]) -> np.ndarray | None:
    return np.load(root / name, allow_pickle=False) if name in manifest["files"] else None


def _file_names(root: Path) -> list[str]:
    """The files of an index that are there, in a fixed order, relative to it; others are not looked at."""
    return [name for name in _possible_names(root) if (root / name).is_file()]


def _possible_names(root: Path) -> Iterator[str]:
    yield from (PASSAGES, EMBEDDINGS, PROBE)
    yield from sorted(f"{BM25_FOLDER}/{path.name}" for path in (root / BM25_FOLDER).glob("*.index.*"))


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
