"""The way to the Hub: a saved model, its code, its processor and its card in one commit."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from .model_card import CARD_NAME, card_for, check_license, write_model_card

__all__ = ["push_folder", "write_model_card"]

logger = logging.getLogger(__name__)


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
    it is. One commit: whoever downloads gets the old or the new model, and an interrupted upload changes nothing.
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
        ValueError: for a folder without model or card, a card without licence, or a name that is none.
        ConnectionError: where the Hub cannot be reached.
        PermissionError: where the token is missing or not allowed to write.
    """
    folder = Path(folder)
    _check_folder(folder)
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.create_commit(repo_id, _operations(folder, repo_id), commit_message=commit_message)
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise PermissionError(
            f"push to {repo_id}: expected a token that may write there, got status {error.response.status_code} from "
            f"{api.endpoint}: run `hf auth login` or pass token=..."
        ) from error
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"push to {repo_id}: expected to reach {api.endpoint}, got {type(error).__name__}: {error}. Look at the "
            f"network and at HF_ENDPOINT and HF_HUB_OFFLINE; the model is whole in the folder {folder.name}."
        ) from error
    logger.info("Pushed %s: %s", folder.name, commit.commit_url)
    return str(commit.commit_url)


def _check_folder(folder: Path) -> None:
    missing = [name for name in ("config.json", CARD_NAME) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"folder {folder}: expected a saved model with its card, got none of {', '.join(missing)}: "
            "model.save_pretrained(folder), then write_model_card(folder, model, ...)."
        )
    check_license(ModelCard.load(folder / CARD_NAME).data.to_dict().get("license", ""))


def _operations(folder: Path, repo_id: str) -> list[CommitOperationAdd]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    content = {path.name: path for path in files} | {CARD_NAME: card_for(folder, repo_id)}
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=source) for name, source in content.items()]
