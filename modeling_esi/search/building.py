"""A data set becomes an index: embedded once, block by block, safe against a kill at any moment.

Embeddings are written in place into a file of the final size; after each block `building.json` says how far it is. The
same call again goes on there, if model, records and settings are the same. Metadata and FAISS come next, the manifest
last.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm.auto import tqdm

from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.embedding import embed_ecgs, unit_length
from modeling_esi.evaluation.embedding_cache import RECORD_COLUMNS, key_of, records_digest, weights_digest

from .approximate import build_faiss, import_faiss
from .index_folder import (
    DTYPES,
    EMBEDDINGS_FILE,
    FAISS_FILE,
    METADATA_FILE,
    is_index,
    open_embeddings,
    read_manifest,
    write_json,
    write_manifest,
)

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)
PROGRESS_FILE = "building.json"
RECORDS_PER_BLOCK = 2048  # embedded between two notes of how far it is: 2 s on a GPU, a minute on a CPU
SCHEMA = {
    "record_id": pa.string(),
    "age": pa.float32(),
    "sex": pa.string(),
    "labels": pa.list_(pa.string()),
    "patient_id": pa.string(),
    "text": pa.string(),
}


def build_index(
    context: EvaluationContext,
    output: str | os.PathLike[str],
    *,
    model_name: str | os.PathLike[str] | None = None,
    dtype: str = "float16",
    with_patient_id: bool = False,
    with_text: bool = False,
    faiss: str | None = None,
) -> dict[str, Any]:
    """Embed the judged split of `context` and write the index, or go on where a killed call stopped.

    Args:
        context: model and data set (`EvaluationContext.load(model, dataset, split="all", ...)`). Records that the
            model's door refuses are left out, named in the log and in the manifest.
        output: a new folder, one that a killed call with the same arguments began, or a finished index, which is left
            as it is; FAISS is then added where it is asked for and not there.
        model_name: folder or Hub name from which a query loads the model; None: a query has to name it. Of a folder,
            the way from the index to it is kept, so that both can be moved together.
        dtype: `"float16"` (half the disk, and faster) or `"float32"`.
        with_patient_id, with_text: also store these; the text is the record's text, or else its report, or else its
            statements.
        faiss: a FAISS index too, by its factory string, such as `"HNSW32"`. It needs faiss-cpu or faiss-gpu.

    Returns:
        The manifest.

    Raises:
        ValueError: for a dtype that is none, embeddings that are not finite, or a folder that holds something else.
        ImportError: where FAISS is asked for and not installed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}.")
    if faiss is not None:
        import_faiss()
    folder = Path(output).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # the system frees it when its holder dies
        rows = context.rows()
        settings = _settings(context, rows, dtype, with_patient_id, with_text)
        if not is_index(folder):
            _begin(folder, settings)
            width = _embed(context, rows, folder, dtype)
            pq.write_table(metadata_of(rows, settings["columns"]), folder / METADATA_FILE)
            told = settings | {
                "width": width,
                "model": _way_to(model_name, folder),
                "faiss": None,
                "refused": context.refused[context.split],
            }
            write_manifest(folder, told, [EMBEDDINGS_FILE, METADATA_FILE])
            (folder / PROGRESS_FILE).unlink()
        _check_same(folder, read_manifest(folder), settings)
        return _with_faiss(folder, faiss)


def identity_of(model: Any, processor: Any) -> dict[str, str]:
    """What embeddings depend on: a hash of the weights, and one of the settings of the door."""
    door = processor.feature_extractor.to_dict()
    own = {name: value for name, value in door.items() if name not in ("auto_map", "processor_class")}
    return {"weights": weights_digest(model), "door": key_of(own)}


def metadata_of(rows: datasets.Dataset, columns: list[str]) -> pa.Table:
    """The columns of an index's metadata, a row for each of the data set's."""
    wanted = [name for name in columns if name != "text"]
    wanted += ["text", "report", "statements"] if "text" in columns else []
    table = rows.select_columns(wanted).with_format("arrow")[:]
    found = {name: table[name] for name in columns}
    found["age"] = pc.if_else(pc.is_nan(table["age"]), None, table["age"])
    if "text" in columns:
        said = [pc.binary_join(chunk, "; ") for chunk in table["statements"].chunks]
        said = pa.chunked_array(said, pa.string())
        candidates = [pc.if_else(pc.equal(text, ""), None, text) for text in (table["text"], table["report"], said)]
        found["text"] = pc.coalesce(*candidates, pa.scalar(""))
    return pa.table(found).cast(pa.schema([(name, SCHEMA[name]) for name in columns]))


# ----- steps ---------------------------------------------------------------------------------------------------------


def _settings(
    context: EvaluationContext, rows: datasets.Dataset, dtype: str, with_patient_id: bool, with_text: bool
) -> dict[str, Any]:
    """All that decides the rows of an index."""
    optional = {"patient_id": with_patient_id, "text": with_text}
    without_signal = rows.select_columns([name for name in RECORD_COLUMNS if name != "signal"])
    shards = [part["sha256"] for part in context.manifest.get("shards", ())]
    return {
        "dataset": {
            "name": context.source,
            "split": context.split,
            "records": key_of(records_digest(without_signal), shards),
        },
        "identity": identity_of(context.model, context.processor),
        "num_records": len(rows),
        "dtype": dtype,
        "columns": [name for name in SCHEMA if optional.get(name, True)],
    }


def _way_to(name: str | os.PathLike[str] | None, folder: Path) -> str | None:
    """The model's Hub name, or the way from the index to its folder."""
    if name is None or not Path(name).is_dir():
        return None if name is None else str(name)
    return os.path.join(os.path.relpath(name, folder), "")  # ends in a slash: a folder, not a name of the Hub


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or take over what a killed call left in it. The caller holds the lock."""
    path = folder / PROGRESS_FILE
    if path.is_file():
        _check_same(folder, json.loads(path.read_text(encoding="utf-8"))["settings"], settings)
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or empty folder, or an index to go on with, got other files.")
    folder.mkdir(exist_ok=True)
    write_json(path, {"settings": settings, "num_done": 0})


def _check_same(folder: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    changed = [name for name in wanted if there.get(name) != wanted[name]]
    if changed:
        told = "; ".join(f"{name}: {there.get(name)} there, {wanted[name]} now" for name in changed)
        raise ValueError(f"{folder}: was begun with other settings ({told}); choose another folder.")


def _embed(context: EvaluationContext, rows: datasets.Dataset, folder: Path, dtype: str) -> int:
    """Embed what is not embedded yet; returns the width."""
    progress = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    path, done, matrix = folder / EMBEDDINGS_FILE, progress["num_done"], None
    if done:
        logger.info("%s: going on after %d of %d records", folder, done, len(rows))
        matrix = np.lib.format.open_memmap(path, mode="r+")
    with tqdm(total=len(rows), initial=done, unit=" ECGs", disable=not context.progress) as bar:
        for start in range(done, len(rows), RECORDS_PER_BLOCK):
            block = rows.select(range(start, min(start + RECORDS_PER_BLOCK, len(rows))))
            door = context.processor.feature_extractor
            embeds = embed_ecgs(context.model, door, block, context.batch_size, device=context.device)
            if matrix is None:
                shape = (len(rows), embeds.shape[1])
                matrix = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            matrix[start : start + len(block)] = unit_length(f"records {start} and after", embeds)
            matrix.flush()  # before the note: after a loss of power it must not promise more than there is
            write_json(folder / PROGRESS_FILE, progress | {"num_done": start + len(block)})
            bar.update(len(block))
    return int(matrix.shape[1])


def _with_faiss(folder: Path, factory: str | None) -> dict[str, Any]:
    """The manifest, after FAISS has been added where it is asked for and not there yet."""
    manifest = read_manifest(folder)
    if factory in (None, manifest["faiss"]):
        return manifest
    build_faiss(open_embeddings(folder, manifest), factory, folder / FAISS_FILE)
    return write_manifest(folder, manifest | {"faiss": factory}, [EMBEDDINGS_FILE, METADATA_FILE, FAISS_FILE])
