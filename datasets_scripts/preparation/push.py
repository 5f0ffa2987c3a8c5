"""The way to the Hub: every shard of a prepared data set as Parquet, with card, manifest and report, in one commit.

A shard is converted, uploaded and forgotten before the next one is begun, so that the disk holds one at a time; the
commit that makes them visible comes last. A push that was interrupted is begun again with the same call: the same
shards give the same bytes, and what the Hub has already is not sent twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from tqdm.auto import tqdm

from datasets_scripts.preparation.dataset_card import dataset_card
from datasets_scripts.preparation.hub_repository import MANIFEST_FILE, REPORT_FILE, hub_errors
from datasets_scripts.preparation.preparation_report import PreparationReport
from datasets_scripts.preparation.prepare import read_manifest, read_report
from datasets_scripts.preparation.public_paths import without_private_paths
from datasets_scripts.preparation.shards import Layout

logger = logging.getLogger(__name__)

SIGNAL_COLUMN = "signal.list.element"
INTEGER_ENCODING = "DELTA_BINARY_PACKED"  # PTB-XL at 500 Hz: 37 % of the integers' size, plain values 54 %


def push_dataset(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = True,
    allow_credentialed: bool = False,
    license: str | None = None,
    token: str | None = None,
    progress: bool = True,
) -> str:
    """Upload a prepared data set as Parquet; the repository is made if there is none.

    All shards get one layout, so that `load_dataset` can read them as one table; a row group is a batch of the shard
    (128 rows, fewer where records are long). Paths of this machine stay here: `manifest.json`, `report.json` and the
    card name files relative to the source's folder. Parquet files of an earlier push are removed in the same commit.

    Args:
        folder: a finished preparation (`prepare_dataset`).
        repository: "name/repository".
        private: whether only you and those you let in can read it.
        allow_credentialed: also push columns that come from tables under a data use agreement. Who may read the
            repository must have signed it.
        license: the Hub's identifier of the licence, where the source does not state one.
        token: for the Hub; by default the one that was logged in with.
        progress: show a bar.

    Returns:
        The URL of the commit.

    Raises:
        FileNotFoundError: if the folder is not a finished preparation.
        ValueError: for one without records or licence, with shards that are not those of its manifest, with columns
            that may not go there, or for a repository that is public where a private one was asked for.
        PermissionError: where the token is missing or not allowed to write.
        ConnectionError: where the Hub cannot be reached, or an upload breaks.
    """
    folder = Path(folder)
    manifest, report = read_manifest(folder), read_report(folder)
    if license is not None:
        manifest["facts"]["license"] = license
    _check_facts(folder, manifest, report)
    _check_credentialed(manifest, private, allow_credentialed)
    api = HfApi(token=token)
    again = "What is uploaded already is not sent twice when the same command is given again."
    with hub_errors(f"push to {repository}", again):
        repository = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True).repo_id
        _check_privacy(api, repository, private)
        parts, additions = _upload_shards(api, repository, folder, manifest["shards"], progress)
        additions += _texts(repository, manifest | {"shards": parts}, report)
        operations = [*additions, *_removals(api, repository, {part["file"] for part in parts})]
        message = f"Upload {report.num_kept} records"
        commit = api.create_commit(repository, operations, commit_message=message, repo_type="dataset")
    logger.info("Pushed %s: %s", folder.name, commit.commit_url)
    return str(commit.commit_url)


def write_parquet(shard: Path, path: Path, layout: Layout) -> list[int]:
    """Write a shard as Parquet in a layout that is wide enough for it; returns the number of rows of each row group.

    The features that `datasets` reads are kept in the schema. The same shard gives the same bytes.
    """
    others = [name for name in layout.schema.names if name != "signal"]
    options: dict[str, Any] = {"compression": "zstd", "write_statistics": others}
    if layout.dtype == "int16":
        options |= {"use_dictionary": others, "column_encoding": {SIGNAL_COLUMN: INTEGER_ENCODING}}
    row_groups = []
    with pa.memory_map(str(shard)) as source, pq.ParquetWriter(path, layout.schema, **options) as writer:
        for batch in pa.ipc.open_stream(source):
            writer.write_table(pa.Table.from_batches([batch]).cast(layout.schema), row_group_size=max(len(batch), 1))
            row_groups.append(len(batch))
    return row_groups


# ----- what may be pushed --------------------------------------------------------------------------------------------


def _check_facts(folder: Path, manifest: Mapping[str, Any], report: PreparationReport) -> None:
    if not report.num_kept:
        raise ValueError(f"{folder}: expected at least one record, got none: look at its {REPORT_FILE}")
    if not manifest["facts"]["license"].strip():
        raise ValueError(
            f"{folder}: expected a licence, got none: pass license=... with the Hub's identifier of the licence under "
            "which you may publish these records (cc-by-4.0, odbl, ..., or other)"
        )


def _check_credentialed(manifest: Mapping[str, Any], private: bool, allow_credentialed: bool) -> None:
    columns = manifest["credentialed_columns"]
    if not columns:
        return
    told = ", ".join(columns)
    if not allow_credentialed:
        options = manifest["settings"]["options"]
        tables = ", ".join(name for name in manifest["facts"]["credentialed_fields"] if options.get(name))
        raise ValueError(
            f"columns {told}: come from a table under a data use agreement (option {tables}); prepare the data set "
            "without that option, or pass allow_credentialed (--allow_credentialed) and push to a private repository "
            "whose readers have signed the agreement"
        )
    if not private:
        raise ValueError(
            f"columns {told}: come from a table under a data use agreement, so expected a private repository, got "
            "private=False: leave --public away, and let in only who has signed the agreement"
        )


def _check_privacy(api: HfApi, repository: str, private: bool) -> None:
    if private and not api.dataset_info(repository).private:
        raise ValueError(
            f"{repository}: expected a private repository, got one that is there already and public: choose another "
            "name, make it private in its settings, or pass private=False (--public)"
        )


def _check_shard(path: Path, part: Mapping[str, Any]) -> None:
    if _sha256(path) != part["sha256"]:
        raise ValueError(
            f"{path}: expected the shard that the manifest describes (sha256 {part['sha256'][:12]}...), got another: "
            "it was changed or damaged; prepare the data set again"
        )


# ----- what is pushed ------------------------------------------------------------------------------------------------


def _upload_shards(
    api: HfApi, repository: str, folder: Path, shards: list[dict[str, Any]], progress: bool
) -> tuple[list[dict[str, Any]], list[CommitOperationAdd]]:
    """Upload every shard with rows; what the manifest says of each, and the operations that will make it visible."""
    shards = [part for part in shards if part["num_rows"]]
    layout = _common_layout(shards)
    parts, additions = [], []
    total = sum(part["num_rows"] for part in shards)
    with TemporaryDirectory() as scratch, tqdm(total=total, unit=" records", disable=not progress) as bar:
        for part in shards:
            _check_shard(folder / part["file"], part)
            path = Path(scratch) / Path(part["file"]).with_suffix(".parquet").name
            row_groups = write_parquet(folder / part["file"], path, layout)
            parts.append(
                part | {"file": path.name, "layout": [layout.dtype, layout.num_values], "row_groups": row_groups,
                        "sha256": _sha256(path)}
            )  # fmt: skip
            additions.append(_upload(api, repository, path))
            path.unlink()
            bar.update(part["num_rows"])
    return parts, additions


def _upload(api: HfApi, repository: str, path: Path) -> CommitOperationAdd:
    addition = CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path)
    try:
        api.preupload_lfs_files(repository, [addition], repo_type="dataset")
    except RuntimeError as error:  # so the client wraps what breaks in the middle of a file
        raise ConnectionError(
            f"push to {repository}: the upload of {path.name} broke ({error.__cause__ or error}); give the same "
            "command again: what is uploaded already is not sent twice"
        ) from error
    if addition.path_or_fileobj:  # small, in a repository that keeps such files in git: it travels with the commit
        addition.path_or_fileobj = path.read_bytes()
    return addition


def _common_layout(shards: list[dict[str, Any]]) -> Layout:
    """The narrowest layout for all shards; a preparation ends with all of them in one dtype."""
    layouts = {Layout(*part["layout"]) for part in shards}
    dtypes = {layout.dtype for layout in layouts}
    if len(dtypes) > 1:
        raise ValueError(f"shards: expected one dtype of signals, got {', '.join(sorted(dtypes))}; prepare them again")
    return layouts.pop() if len(layouts) == 1 else Layout(dtypes.pop(), None)


def _texts(repository: str, manifest: dict[str, Any], report: PreparationReport) -> list[CommitOperationAdd]:
    """Manifest, report and card, as they may be read elsewhere."""
    data_dir = manifest["settings"]["data_dir"]
    settings = {name: value for name, value in manifest["settings"].items() if name != "data_dir"}
    manifest = without_private_paths(manifest | {"settings": settings}, data_dir)
    report_values = without_private_paths(report.to_dict(), data_dir)
    contents = {
        MANIFEST_FILE: json.dumps(manifest, indent=1, ensure_ascii=False),
        REPORT_FILE: json.dumps(report_values, indent=1, ensure_ascii=False),
        "README.md": dataset_card(manifest, report, suffix="parquet", repository=repository),
    }
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=text.encode()) for name, text in contents.items()]


def _removals(api: HfApi, repository: str, kept: set[str]) -> list[CommitOperationDelete]:
    """Parquet files that an earlier push left: the card's pattern would take them for a part of this data set."""
    there = api.list_repo_files(repository, repo_type="dataset")
    left = [name for name in there if name.endswith((".parquet", ".arrow")) and name not in kept]
    return [CommitOperationDelete(path_in_repo=name) for name in left]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
