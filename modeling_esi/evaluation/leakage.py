"""Was the test set in the training? What a model card names as training data, held against the judged data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: How texts spell the data sets, by the name of the source.
SPELLINGS: Mapping[str, str] = {
    "ptb_xl": r"ptb[\s_-]?xl",
    "mimic_iv_ecg": r"mimic[\s_-]?(?:iv|4)(?:[\s_-]?ecg)?",
    "physionet2021": r"physionet[\s/_-]*(?:cinc)?[\s_-]*(?:challenge)?[\s_-]*20(?:20|21)|challenge[\s_-]20(?:20|21)",
    "cpsc2018": r"cpsc[\s_-]?2018|icbeb",
    "csn": r"chapman|ningbo|\bcsn\b",
    "code15": r"code[\s_-]?15",
    "ecg_id": r"ecg[\s_-]?id\b",
    "ludb": r"\bludb\b",
    "synthetic": r"\bsynthetic\b",
}
#: Collections that hold (parts of) other sets under other names.
HOLDS: Mapping[str, tuple[str, ...]] = {"physionet2021": ("ptb_xl", "cpsc2018", "csn")}
#: Sources that hold anybody's records: their name says nothing of what is in them.
UNNAMED = ("files", "esi_csv")
_SECTION = re.compile(r"^## Training data\s*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_NO_RECORDS = ("|", "Licences of the data:", "Started from:")  # lines of a card that tell of no records
_SPLIT_BY_PATIENT = re.compile(r"\d train, .*split by patient", re.IGNORECASE)

_NOT_HELD_OUT = "and nothing states that the {} split was held out: take these figures as seen in training"
_WHY_SEEN = {
    "train": "and its training split is judged: these figures are of records seen in training",
    "all": "and records of its training split are among the judged ones: take these figures as seen in training",
}


@dataclass(frozen=True)
class Leakage:
    """What is known of test records in training.

    Attributes:
        named: the data sets that the card names as training data, by the names of our sources.
        seen: whether test records were in training; None where nobody says.
        line: the sentence for the reader.
    """

    named: tuple[str, ...]
    seen: bool | None
    line: str


def training_text(card: str) -> str:
    """What a model card says of its training data: its section of that name; empty where it has none."""
    section = _SECTION.search(card)
    return section[1].strip() if section else ""


def named_datasets(text: str) -> tuple[str, ...]:
    """The data sets that a text names.

    >>> named_datasets("PTB-XL, folds 1-8, and MIMIC-IV-ECG")
    ('ptb_xl', 'mimic_iv_ecg')
    """
    return tuple(name for name, pattern in SPELLINGS.items() if re.search(pattern, text, re.IGNORECASE))


def leakage_of(card: str, dataset: str, split: str = "test") -> Leakage:
    """Whether records of `dataset`'s `split` were in the training of a model with this card.

    A data set counts as seen where the card names it, or a collection that holds it, and does not state that the split
    was held out by patient; `"train"` and `"all"`, which holds the training split, never are. Silence of the card is
    not innocence, nor is a data set that nobody can name (own files): both give None.
    """
    text = training_text(card)
    named = named_datasets(text)
    if not text or "not stated" in text.splitlines()[0].lower() or not named:
        reason = "the model card names no known data set as training data" if text else "there is no model card"
        return Leakage(named, None, f"not known whether {dataset} was in the training: {reason}.")
    told = f"the model card names as training data: {', '.join(named)}"
    if dataset in UNNAMED:
        return Leakage(named, None, f"{told}. Whether the judged records, one's own files, are of these is not known.")
    shared = _sharing(named, dataset)
    if not shared:
        return Leakage(named, False, f"{told}. {dataset} is not among them.")
    if shared == [dataset] and _is_held_out(text, dataset, split):
        return Leakage(
            named, False, f"{told}. {dataset} is among them; its {split} split is stated as held out by patient."
        )
    others = ", ".join(name for name in shared if name != dataset)
    how = f"shares records with {others}, which is among them" if others else "is among them"
    return Leakage(named, True, f"{told}. {dataset} {how}, {_WHY_SEEN.get(split, _NOT_HELD_OUT).format(split)}.")


def _is_held_out(text: str, dataset: str, split: str) -> bool:
    """Whether each line on this data set tells of a training split, parted by patient from the one that is judged.

    An encoder trained on all of it, and then fine-tuned on its training split, has seen the others.
    """
    told = (line for line in text.splitlines() if not line.startswith(_NO_RECORDS))
    lines = [line for line in told if dataset in named_datasets(line)]
    return split not in _WHY_SEEN and bool(lines) and all(_SPLIT_BY_PATIENT.search(line) for line in lines)


def _sharing(named: tuple[str, ...], dataset: str) -> list[str]:
    """The named sets that share records with `dataset`; itself is one of them."""
    holders = {holder for holder, held in HOLDS.items() if dataset in held}
    return [name for name in named if name in {dataset, *holders, *HOLDS.get(dataset, ())}]
