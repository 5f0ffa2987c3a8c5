"""What changes in a card that is there: results come in, a licence is corrected, other weights are pushed under it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedModel

from .card_results import (
    NO_RESULTS,
    Results,
    eval_results,
    keep_results,
    read_results,
    result_block,
    result_title,
    results_files,
)
from .model_card import (
    CARD_NAME,
    check_license,
    hashes_in,
    is_hub_id,
    license_text,
    named,
    weight_hashes,
    write_model_card,
)

#: What transformers writes where a repository has no card.
_TEMPLATE = "This model card has been automatically generated"


def card_for(folder: Path, repo_id: str) -> bytes:
    """The bytes of a folder's card, naming the repository instead of the folder."""
    return named((folder / CARD_NAME).read_text(encoding="utf-8"), folder.resolve().name, repo_id).encode()


def new_card(folder: Path, *, license: str, **facts: Any) -> None:
    """Write the card of a saved model anew, or correct the licence alone.

    Where the card that is there describes these weights and nothing but the licence is stated, the rest stays as it
    is. Otherwise everything else that it said is gone, since it was said of other weights.

    Args:
        folder: a saved model.
        license: of the weights.
        facts: as of `write_model_card`; empty ones are not stated.

    Raises:
        ValueError: for a folder without a model of this package, and for a licence that is none.
    """
    old = _read(folder)
    is_true = bool(hashes_in(old)) and hashes_in(old) == weight_hashes(folder)
    stated = {name: fact for name, fact in facts.items() if fact}
    if is_true and not stated:
        _save(folder, *_with_license(old, license))
        return
    if is_true and (folder / "results.json").is_file():
        stated["results"] = read_results(folder / "results.json")
    write_model_card(folder, _load_model(folder), license=license, **{"training_data": ""} | stated)


def add_results(folder: Path, directories: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Bring results of `python -m modeling_esi.evaluation` into the card, and beside it.

    A result replaces an earlier one of the same protocol and data. Each is kept as `results_*.json` with the hashes of
    the folder's weights, so that `check` can hold the card against it; results kept earlier come in again where they
    are of these weights.

    Args:
        folder: a saved model with its card.
        directories: with a `results.json` each.

    Returns:
        The names of the files written.

    Raises:
        ValueError: without a card, with one of other weights, or for a file that holds no results.
        FileNotFoundError: for a directory without `results.json`.
    """
    if not (card := _read(folder)):
        raise ValueError(f"folder {folder}: expected {CARD_NAME}, got none: write one first, with --license.")
    hashes = weight_hashes(folder)
    if hashes_in(card) not in ({}, hashes):
        raise ValueError(f"folder {folder}: its card describes other weights: write it anew first, with --license.")
    given = [read_results(Path(directory) / "results.json") for directory in directories]
    names = [keep_results(folder, result, hashes) for result in given]
    kept = [read_results(path) for path in results_files(folder)]
    kept = [result for result in kept if result.get("weights") == hashes]
    _save(folder, *_with_results(card, kept, folder.resolve().name))
    return names


def card_before_push(model: PreTrainedModel, folder: str | os.PathLike[str], repo_id: str) -> None:
    """The card of a plain `model.push_to_hub(repo_id)`, in the folder that is about to go.

    transformers put there the repository's card, or its own empty one. One that people wrote stays. An empty one, and
    one of this package that describes other weights, is written anew from what the model says of itself; the figures
    of the old weights are not taken over.
    """
    folder = Path(folder)
    old = _read(folder)
    if old and _TEMPLATE not in old and hashes_in(old) in ({}, weight_hashes(folder)):
        return
    write_model_card(folder, model, **_facts_after(old, str(model.name_or_path or "")))
    (folder / CARD_NAME).write_bytes(card_for(folder, repo_id))


# ----- steps ---------------------------------------------------------------------------------------------------------


def _read(folder: Path) -> str:
    path = folder / CARD_NAME
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _save(folder: Path, data: ModelCardData, text: str) -> None:
    unfinished = folder / f".{CARD_NAME}.unfinished"
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text.strip()}\n").save(unfinished)
    os.replace(unfinished, folder / CARD_NAME)


def _load_model(folder: Path) -> PreTrainedModel:
    """A model of this package, by the class that its configuration names."""
    from . import modeling_esi

    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    model_class = getattr(modeling_esi, names[0], None) if names else None
    if model_class is None:
        raise ValueError(f"folder {folder}: expected a model of this package, config.json says {names or 'no class'}.")
    return model_class.from_pretrained(folder)


def _section(text: str, title: str) -> re.Match[str] | None:
    """A section of a card: its group 1 is what stands under the heading."""
    return re.search(rf"^## {re.escape(title)}\n\n(.*?)(?=\n\n## |\s*\Z)", text, re.MULTILINE | re.DOTALL)


def _with_section(text: str, title: str, body: str) -> str:
    found = _section(text, title)
    if found is None:
        return f"{text.rstrip()}\n\n## {title}\n\n{body}"
    return text[: found.start(1)] + body + text[found.end(1) :]


def _with_license(card: str, license: str) -> tuple[ModelCardData, str]:
    known = ModelCard(card)
    known.data.license = check_license(license)
    return known.data, _with_section(known.text, "Licence", license_text(known.data.license))


def _with_results(card: str, results: Iterable[Results], name: str) -> tuple[ModelCardData, str]:
    known, results = ModelCard(card), list(results)
    found = _section(known.text, "Results")
    intro, *rest = re.split(r"^### (.+)\n\n", found[1] if found else "", flags=re.MULTILINE)
    blocks = dict(zip(rest[::2], map(str.strip, rest[1::2]), strict=True))
    blocks |= {result_title(result): result_block(result) for result in results}
    intro = (intro.replace(NO_RESULTS, "") if blocks else intro).strip()
    body = "\n\n".join([*([intro] if intro else []), *(f"### {title}\n\n{block}" for title, block in blocks.items())])
    new = [entry for result in results for entry in eval_results(result)]
    replaced = {_origin(entry) for entry in new}
    old = [entry for entry in known.data.eval_results or [] if _origin(entry) not in replaced]
    known.data.eval_results = [*old, *new] or None
    known.data.model_name = known.data.model_name or name
    return known.data, _with_section(known.text, "Results", body)


def _origin(entry: Any) -> tuple[str, str | None]:
    return entry.dataset_name, (entry.metric_args or {}).get("evaluation")


def _facts_after(old: str, origin: str) -> dict[str, Any]:
    """What can be said of weights that nobody described: what the card of the ones before them said."""
    base = Path(origin).expanduser() if origin else None
    if not hashes_in(old):  # the template of transformers: the weights' own origin may have a card
        local = _read(base) if base is not None and base.is_dir() else ""
        is_named = is_hub_id(origin) or bool(local)
        return {"license": "other", "training_data": _said_before(local, "the weights they started from"),
                "base_model": origin if is_named else None}  # fmt: skip
    data = ModelCard(old).data
    return {
        "license": data.license or "other", "training_data": _said_before(old, "the weights before them"),
        "base_model": data.base_model, "language": data.language,
    }  # fmt: skip


def _said_before(card: str, of: str) -> str:
    text = "What these weights were trained on last is not stated."
    if not card:
        return text
    license, trained = ModelCard(card).data.license or "not stated", _section(card, "Training data")
    said = f" The card of {of}, under the licence `{license}`, said:"
    quoted = "\n".join(f"> {line}".rstrip() for line in trained[1].splitlines()) if trained else "> (nothing)"
    return f"{text}{said}\n\n{quoted}"
