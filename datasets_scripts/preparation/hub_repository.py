"""A prepared data set in a repository of the Hub: found at one commit, read, opened; errors that say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any, Self

import datasets
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from datasets_scripts.load_report import LoadReport
from datasets_scripts.preparation.preparation_report import PreparationReport
from datasets_scripts.sources import SPLITS, check_split

MANIFEST_FILE, REPORT_FILE = "manifest.json", "report.json"


@dataclass(frozen=True)
class DatasetRepository:
    """A data set repository at one commit, so that what is read at different times belongs together.

    Attributes:
        name: "name/repository".
        commit: its full hash.
        token: for the Hub; None for the one that was logged in with.
    """

    name: str
    commit: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def find(cls, name: str, revision: str | None = None, token: str | None = None) -> Self:
        """The repository at a branch, tag or commit (default: the newest; without a network, the newest in the cache).

        Raises FileNotFoundError if there is no such data set, PermissionError if the token may not read it, and
        ConnectionError where the Hub cannot be reached and the cache does not hold it.
        """
        with hub_errors(f"read {name}"):
            path = HfApi(token=token).hf_hub_download(name, MANIFEST_FILE, repo_type="dataset", revision=revision)
        return cls(name, Path(path).parent.name, token)  # files lie in the cache under snapshots/COMMIT

    def read_json(self, file: str) -> dict[str, Any]:
        """A JSON file of the repository. Errors as for `find`; FileNotFoundError if it has no such file."""
        with hub_errors(f"read {self.name}"):
            path = HfApi(token=self.token).hf_hub_download(self.name, file, repo_type="dataset", revision=self.commit)
        return json.loads(Path(path).read_text(encoding="utf-8"))

    def open(self, file: str) -> IO[bytes]:
        """A file of the repository for reading at any place: each read is one request for a range of bytes."""
        with hub_errors(f"read {self.name}"):
            system = HfFileSystem(token=self.token)
            return system.open(f"datasets/{self.name}@{self.commit}/{file}", "rb", cache_type="none")


def is_repository(name: str | PathLike[str]) -> bool:
    """Whether a data set's name means a repository of the Hub: `name/repository`, and no such path is here."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)) is not None and not Path(name).exists()


def open_repository(
    name: str,
    split: str | None = "train",
    limit: int | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> tuple[datasets.Dataset, LoadReport]:
    """A split of a pushed data set (None: all), downloaded once, memory-mapped, and what became of its records.

    The Parquet files and the Arrow files made of them lie in the Hugging Face cache afterwards: about 1.4 times the
    size of the signals. Where that is too much, `streaming.stream_ecg_dataset` keeps nothing.

    Args:
        name: "name/repository", as `push_dataset` filled it.
        split: which split, None for all, one after the other.
        limit: at most so many records of each split, the first ones.
        revision: branch, tag or commit; default: the newest.
        token: for the Hub; by default the one that was logged in with.

    Raises:
        ValueError: for a split that it does not have, or that holds no record.
        FileNotFoundError, PermissionError, ConnectionError: see `DatasetRepository.find`.
    """
    check_split(split)
    repository = DatasetRepository.find(name, revision, token)
    manifest = repository.read_json(MANIFEST_FILE)
    report = PreparationReport.from_dict(repository.read_json(REPORT_FILE)).of_split(split)
    wanted = [s for s in SPLITS if split in (None, s) and any(part["split"] == s for part in manifest["shards"])]
    if not wanted:
        raise ValueError(f"{name}: expected at least one record in the split {split!r}, got none of {report.num_read}")
    with hub_errors(f"read {name}"):
        parts = [datasets.load_dataset(name, split=s, revision=repository.commit, token=token) for s in wanted]
    if limit is not None:
        parts = [part.select(range(min(limit, len(part)))) for part in parts]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts), report


@contextmanager
def hub_errors(what: str, advice: str = "") -> Iterator[None]:
    """Errors of the Hub's client as FileNotFoundError, PermissionError or ConnectionError that say what to do.

    `what` is what was tried, `advice` a last sentence for a connection that failed.
    """
    endpoint = HfApi().endpoint
    try:
        yield
    except HfHubHTTPError as error:
        raise _explained(what, endpoint, error) from error
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise ConnectionError(
            f"{what}: expected to reach {endpoint}, got {type(error).__name__}: {str(error).rstrip('.')}. Look at the "
            f"network and at HF_ENDPOINT and HF_HUB_OFFLINE. {advice}".rstrip()
        ) from error


def _explained(what: str, endpoint: str, error: HfHubHTTPError) -> OSError:
    status = error.response.status_code
    if status in (401, 403):
        return PermissionError(
            f"{what}: expected a token that may do that, or a public repository that exists, got status {status} from "
            f"{endpoint}: run `hf auth login` or pass token=..."
        )
    if status == 404:
        return FileNotFoundError(
            f"{what}: expected it at {endpoint}, got status 404: look at the name and the revision (there is no such "
            "folder here either), and log in (`hf auth login`) if it is private. What is read here must have been "
            "pushed by `python -m datasets_scripts push`."
        )
    return ConnectionError(f"{what}: expected an answer of {endpoint}, got {type(error).__name__}: {error}. Try again.")
