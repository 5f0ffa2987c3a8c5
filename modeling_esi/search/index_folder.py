"""An index on disk, and when a folder is one.

    embeddings.npy      (records, width) float16 or float32, mapped into memory, not read
    metadata.parquet    record_id, age, sex, labels of each row; patient_id and text where they were asked for
    embeddings.faiss    where it was asked for
    manifest.json       written last: a folder without it is not an index

The manifest names the model by a hash of its weights and by the settings of its door, so that a query with another one
is refused, and every file by size and hash. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VERSION = 1
MANIFEST_FILE, EMBEDDINGS_FILE, METADATA_FILE, FAISS_FILE = (
    "manifest.json", "embeddings.npy", "metadata.parquet", "embeddings.faiss",
)  # fmt: skip
DTYPES = ("float16", "float32")
_FIELDS = {"num_records", "width", "dtype", "model", "identity", "columns", "files", "faiss", "refused"}
_REBUILD = "build it anew (python -m modeling_esi.search build)"


class IndexRefused(ValueError):
    """A folder that is no whole index, or not one of this model; the message says expected, got, and what to do."""


def is_index(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a finished index."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest. Raises FileNotFoundError where the folder is no finished index, `IndexRefused` for a broken one."""
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file: expected an index; build it, or run the same build again where one was stopped "
            "(python -m modeling_esi.search build)."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IndexRefused(f"{path}: expected JSON, got something else; {_REBUILD}.") from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise IndexRefused(f"{path}: expected an index of version {VERSION}, got {version}; {_REBUILD}.")
    if missing := _FIELDS - manifest.keys():
        raise IndexRefused(f"{path}: expected {', '.join(sorted(_FIELDS))}, got none of {sorted(missing)}; {_REBUILD}.")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Writes the manifest, with size and hash of the files `names`, as the last file of an index; returns it."""
    files = {name: {"size": (folder / name).stat().st_size, "sha256": file_digest(folder / name)} for name in names}
    whole = {"version": VERSION} | dict(manifest) | {"files": files}
    write_json(folder / MANIFEST_FILE, whole)
    return whole


def write_json(path: Path, values: Any) -> None:
    """JSON under its name only when it is whole."""
    unfinished = path.with_name(f"{path.name}.building")
    unfinished.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_embeddings(folder: Path, manifest: Mapping[str, Any], verify: bool = False) -> np.ndarray:
    """`(N, P)`, mapped into memory. Raises `IndexRefused` where the file is not the manifest's.

    Size, shape and type are always checked; every bit with `verify`, which reads the whole file.
    """
    path = _checked(folder, EMBEDDINGS_FILE, manifest, verify)
    expected = (manifest["num_records"], manifest["width"]), manifest["dtype"]
    try:
        # copy on write: torch takes no read-only arrays; nothing is ever written
        matrix = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:
        raise IndexRefused(f"{path}: expected a NumPy file of numbers, got: {error}; {_REBUILD}.") from error
    if (matrix.shape, matrix.dtype.name) != expected or not matrix.flags.c_contiguous:
        raise IndexRefused(f"{path}: expected {expected}, got {(matrix.shape, matrix.dtype.name)}; {_REBUILD}.")
    return matrix


def open_metadata(folder: Path, manifest: Mapping[str, Any]) -> pa.Table:
    """A row of metadata for each embedding. Raises `IndexRefused` where the file is not the manifest's."""
    path = _checked(folder, METADATA_FILE, manifest, verify=True)
    table = pq.read_table(path)
    if table.num_rows != manifest["num_records"] or table.column_names != manifest["columns"]:
        raise IndexRefused(
            f"{path}: expected {manifest['num_records']} rows of {manifest['columns']}, got {table.num_rows} of "
            f"{table.column_names}; {_REBUILD}."
        )
    return table


def faiss_file(folder: Path, manifest: Mapping[str, Any], verify: bool = False) -> Path:
    """The FAISS index beside the embeddings. ValueError where the index was built without, or it is not as written."""
    if FAISS_FILE not in manifest["files"]:
        raise ValueError(f"{folder}: was built without FAISS: build it again with --faiss HNSW32, or search exactly.")
    return _checked(folder, FAISS_FILE, manifest, verify)


def _checked(folder: Path, name: str, manifest: Mapping[str, Any], verify: bool) -> Path:
    path, told = folder / name, manifest["files"].get(name)
    if told is None or not path.is_file():
        raise IndexRefused(f"{path}: expected this file in the index, got none; {_REBUILD}.")
    size = path.stat().st_size
    if size != told["size"]:
        raise IndexRefused(f"{path}: expected {told['size']} bytes, got {size}; {_REBUILD}.")
    if verify and file_digest(path) != told["sha256"]:
        raise IndexRefused(f"{path}: is not as it was written (sha256); {_REBUILD}.")
    return path
