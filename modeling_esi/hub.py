"""The way to the Hub and back: push a model folder in one commit, pull one, check one, bring results into its card.

    python -m modeling_esi.hub push esi-ecg name/esi-ecg --private     # weights, code, processor and card
    python -m modeling_esi.hub pull name/esi-ecg esi-ecg               # weights and settings; no code, no pickle
    python -m modeling_esi.hub check esi-ecg                           # or name/esi-ecg: does it load, is its card true
    python -m modeling_esi.hub card esi-ecg --results results/zero_shot  # what the evaluation found, into the card
    python -m modeling_esi.hub card tuned --license cc-by-4.0          # a card for a folder that has none
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .card_changes import add_results, card_for, new_card
from .card_results import public_results, results_files
from .hub_check import Finding, check_folder, looks_like_pickle, refuse_untrue, stale_results, told
from .model_card import CARD_NAME, check_license, write_model_card

__all__ = ["check_repository", "pull_folder", "push_folder", "write_model_card"]

logger = logging.getLogger(__name__)

SAFE_FILES = ("*.safetensors", "*.json", "*.txt", "*.md")
CODE_FILES = ("*.py",)
#: What a push takes off the Hub where the folder no longer has it: it would be loaded, or judged, as the new model's.
REPLACED_FILES = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "results.json", "results_*.json",
)  # fmt: skip


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload model",
) -> str:
    """Upload a saved model in one commit; the repository is made if there is none.

    Only files that lie in the folder itself go: a saved model is flat, and training checkpoints and logs, which may
    name paths of this machine, are folders. The code in the uploaded card names `repo_id`; the local card is left as
    it is. Weights and results of an earlier push that the folder no longer has go in the same commit. One commit:
    whoever downloads gets the old or the new model, and an interrupted upload changes nothing.
    (`upload_folder` of huggingface_hub 2.x may spread a folder over several commits.)

    Args:
        folder: with `config.json` and a model card (`write_model_card`).
        repo_id: "name/repository".
        private: of a repository that is made here.
        token: for the Hub; by default the one that was logged in with.
        commit_message: first line of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: for a folder without model or card, with a pickle, or with a card without licence or of other
            weights; for a name that is none; and where somebody else pushed meanwhile.
        ConnectionError: where the Hub cannot be reached.
        PermissionError: where the token is missing or not allowed to write.
    """
    folder = Path(folder)
    _check_before_push(folder)
    api = HfApi(token=token)
    with _hub_errors(f"push to {repo_id}", api.endpoint, f"the model is whole in the folder {folder.name}"):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        before = api.model_info(repo_id)
        operations = list(_operations(_content(folder, repo_id), before.siblings or []))
        commit = api.create_commit(repo_id, operations, commit_message=commit_message, parent_commit=before.sha)
    logger.info("Pushed %s: %s", folder.name, commit.commit_url)
    return str(commit.commit_url)


def pull_folder(
    repo_id: str,
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    token: str | None = None,
) -> Path:
    """Download a model into a new folder: weights, settings, tokenizer and card; never a pickle.

    The folder is there whole or not at all; a download that was cut off goes on where it was.

    Args:
        repo_id: "name/repository".
        folder: which must not be there yet, or be empty.
        revision: branch, tag or commit; by default the newest.
        trust_remote_code: download the repository's Python files too. Without them the folder loads where this
            package is installed, and none of its code ever runs.
        token: for the Hub; by default the one that was logged in with.

    Returns:
        The folder.

    Raises:
        ValueError: for a repository, a revision or a model that is not there, and a folder that is there already.
        ConnectionError: where the Hub cannot be reached.
        PermissionError: where the token may not read.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder {folder}: expected none yet, or an empty one, got one with files: name another.")
    found = _repository_files(repo_id, revision, token)
    _download(repo_id, found, folder, [*SAFE_FILES, *(CODE_FILES if trust_remote_code else ())], token)
    return folder


def check_repository(
    repo_id: str, revision: str | None = None, *, trust_remote_code: bool = False, token: str | None = None
) -> list[Finding]:
    """What `check_folder` finds in a repository; one with a pickle is not downloaded. Raises as `pull_folder`."""
    found = _repository_files(repo_id, revision, token)
    if pickles := [name for name in found.names if looks_like_pickle(name)]:
        return [Finding("pickles", "fail", f"{', '.join(pickles)}: can run code when loaded; nothing was downloaded")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / repo_id.rpartition("/")[2]
        _download(repo_id, found, folder, [*SAFE_FILES, *CODE_FILES], token)
        return check_folder(folder, trust_remote_code=trust_remote_code)


# ----- steps ---------------------------------------------------------------------------------------------------------


class _Repository(NamedTuple):
    """A commit, and the names of its files."""

    sha: str
    names: list[str]


def _repository_files(repo_id: str, revision: str | None, token: str | None) -> _Repository:
    api = HfApi(token=token)
    with _hub_errors(f"pull of {repo_id}", api.endpoint, "nothing was downloaded"):
        info = api.model_info(repo_id, revision=revision)
    names = [file.rfilename for file in info.siblings or []]
    if "config.json" not in names:
        raise ValueError(f"pull of {repo_id}: expected a model with its config.json, got a repository without.")
    return _Repository(str(info.sha), names)


def _download(repo_id: str, found: _Repository, folder: Path, patterns: list[str], token: str | None) -> None:
    """The files of a commit that lie in the repository itself, beside `folder` first, so that it is whole or not there.

    What is there is counted: where the Hub is lost, `snapshot_download` gives the half that it finds in the folder.
    """
    unfinished = folder.with_name(f".{folder.name}.{found.sha}")
    wanted = {name for name in found.names if "/" not in name and any(Path(name).match(one) for one in patterns)}
    meanwhile = "the same command goes on where it was"
    with _hub_errors(f"pull of {repo_id}", HfApi().endpoint, meanwhile):
        snapshot_download(repo_id, revision=found.sha, local_dir=unfinished, allow_patterns=sorted(wanted), token=token)
    if missing := sorted(name for name in wanted if not (unfinished / name).is_file()):
        raise ConnectionError(f"pull of {repo_id}: expected {', '.join(missing)} too, the Hub was lost; {meanwhile}.")
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # what huggingface_hub needs to go on
    if folder.exists():
        folder.rmdir()
    os.replace(unfinished, folder)


def _check_before_push(folder: Path) -> None:
    missing = [name for name in ("config.json", CARD_NAME) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"folder {folder}: expected a saved model with its card, got none of {', '.join(missing)}: "
            "model.save_pretrained(folder), then `python -m modeling_esi.hub card FOLDER --license ...` or "
            "write_model_card(folder, model, ...)."
        )
    check_license(ModelCard.load(folder / CARD_NAME).data.to_dict().get("license", ""))
    refuse_untrue(folder)


def _own_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _content(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """The files to push, by name: no folders, nothing hidden, no results of other weights, no paths in the others."""
    stale = stale_results(folder)
    if stale:
        logger.warning("Not pushed, of other weights: %s", ", ".join(path.name for path in stale))
    content: dict[str, Path | bytes] = {path.name: path for path in _own_files(folder) if path not in stale}
    content |= {path.name: public_results(path) for path in results_files(folder) if path not in stale}
    return content | {CARD_NAME: card_for(folder, repo_id)}


def _operations(
    content: Mapping[str, Path | bytes], there: Sequence[Any]
) -> Iterator[CommitOperationAdd | CommitOperationDelete]:
    """Add the files; delete what an earlier push left on the Hub and these replace without the same name."""
    for name, source in content.items():
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=source)
    for name in (file.rfilename for file in there):
        replaced = "/" not in name and any(Path(name).match(pattern) for pattern in REPLACED_FILES)
        if replaced and name not in content:
            yield CommitOperationDelete(path_in_repo=name)


@contextlib.contextmanager
def _hub_errors(what: str, endpoint: str, meanwhile: str) -> Iterator[None]:
    """What the Hub answers, as errors that say what to do."""
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"{what}: expected a repository and revision at {endpoint} that may be read, got {type(error).__name__}: "
            "look at the name; a private repository needs `hf auth login`."
        ) from error
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RuntimeError) as error:
        raise _in_plain_words(error, what, endpoint, meanwhile) from error


def _in_plain_words(error: Exception, what: str, endpoint: str, meanwhile: str) -> Exception:
    status = _status_of(error)
    if status in (401, 403):
        return PermissionError(
            f"{what}: expected a token that may do this, got status {status} from {endpoint}: "
            "run `hf auth login` or pass token=..."
        )
    if status == 412:
        return ValueError(f"{what}: the repository was changed meanwhile; look at it, then try again.")
    if status is not None:
        return ConnectionError(f"{what}: got status {status} from {endpoint}: try again; {meanwhile}.")
    return ConnectionError(
        f"{what}: expected to reach {endpoint}, got {type(error).__name__}: {error}. Look at the network and at "
        f"HF_ENDPOINT and HF_HUB_OFFLINE; {meanwhile}."
    )


def _status_of(error: BaseException | None) -> int | None:
    """The Hub's status behind an error; huggingface_hub wraps some."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


# ----- command line --------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked and found nothing wrong, 1 with a sentence on stderr if not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    flags = parser_of().parse_args(argv)
    try:
        return {"push": _push, "pull": _pull, "check": _check, "card": _card}[flags.command](flags)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def parser_of() -> argparse.ArgumentParser:
    """The commands and their flags."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m modeling_esi.hub", description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="upload a model folder in one commit")
    push.add_argument("folder", help="a saved model with its card")
    push.add_argument("repo_id", metavar="REPO_ID", help="name/repository on the Hub")
    push.add_argument("--private", action="store_true", help="where the repository is made now")
    push.add_argument("--message", default="Upload model", help="first line of the commit")
    pull = commands.add_parser("pull", help="download a model into a new folder")
    pull.add_argument("repo_id", metavar="REPO_ID", help="name/repository on the Hub")
    pull.add_argument("folder", help="a new folder")
    pull.add_argument("--revision", help="branch, tag or commit; default: the newest")
    pull.add_argument("--trust_remote_code", action="store_true", help="its Python files too")
    check = commands.add_parser("check", help="does it load in a clean interpreter, do its numbers match its card")
    check.add_argument("model", metavar="FOLDER|REPO_ID", help="a model folder, or name/repository on the Hub")
    check.add_argument("--revision", help="of a repository")
    check.add_argument("--trust_remote_code", action="store_true", help="run its code though it is not this package's")
    card = commands.add_parser("card", help="write a card, or bring results into the one that is there")
    card.add_argument("folder", help="a saved model")
    card.add_argument("--results", nargs="+", default=[], metavar="DIR", help="outputs of modeling_esi.evaluation")
    card.add_argument("--license", help="of the weights, as the Hub spells it; a new card needs it")
    card.add_argument("--training_data", default="", help="which records, how many, how split; for a new card")
    card.add_argument("--data_license", help="licences of the training data; for a new card")
    card.add_argument("--base_model", help="what the weights started from; for a new card")
    card.add_argument("--label_supervised", action="store_true", help="training texts were made from labels; new card")
    return parser


def _push(flags: argparse.Namespace) -> int:
    url = push_folder(flags.folder, flags.repo_id, private=flags.private, commit_message=flags.message)
    sys.stdout.write(f"{url}\n")
    return 0


def _pull(flags: argparse.Namespace) -> int:
    options = {"revision": flags.revision, "trust_remote_code": flags.trust_remote_code}
    folder = pull_folder(flags.repo_id, flags.folder, **options)
    sys.stdout.write(f"{folder}: {', '.join(path.name for path in _own_files(folder))}\n")
    return 0


def _check(flags: argparse.Namespace) -> int:
    if Path(flags.model).is_dir():
        findings = check_folder(flags.model, trust_remote_code=flags.trust_remote_code)
    else:
        findings = check_repository(flags.model, flags.revision, trust_remote_code=flags.trust_remote_code)
    sys.stdout.write(f"{told(findings)}\n")
    return int(any(finding.verdict == "fail" for finding in findings))


def _card(flags: argparse.Namespace) -> int:
    folder = Path(flags.folder)
    if flags.license is not None:
        new_card(
            folder, license=flags.license, training_data=flags.training_data, data_licenses=flags.data_license,
            base_model=flags.base_model, text_is_label_supervised=flags.label_supervised,
        )  # fmt: skip
    added = add_results(folder, flags.results)
    sys.stdout.write(f"{folder / CARD_NAME}: {', '.join(added) or 'no results added'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
