"""The same figures within groups of patients: by sex, by age, by device where it is known."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets_scripts.listing.csv_tables import read_rows
from datasets_scripts.ptb_xl import TABLE_FILE

from .multilabel import METRICS, judge
from .sampled import Sampled

if TYPE_CHECKING:
    from .context import EvaluationContext
    from .label_tasks import LabelTask

AGE_BANDS = {"under 18": 18.0, "18-39": 40.0, "40-64": 65.0, "65-79": 80.0, "80 and over": float("inf")}
UNKNOWN = "not known"
NUM_RESAMPLES = 200  # many groups, each an interval
FEWEST_PATIENTS = 10  # of two or three, a bootstrap draws the same ones again and again: its interval says nothing


def age_band(age: float | None) -> str:
    """The band of an age in years; 90 stands for "over 89" in PTB-XL and others.

    >>> age_band(39.9), age_band(90), age_band(None)
    ('18-39', '80 and over', 'not known')
    """
    if age is None or np.isnan(age):
        return UNKNOWN
    return next(band for band, end in AGE_BANDS.items() if age < end)


def attributes(context: EvaluationContext, source_split: str) -> dict[str, list[str]]:
    """`sex`, `age` (its band) and, where it is known, `device` of each record of `context.rows(source_split)`."""
    rows = context.rows(source_split).select_columns(["record_id", "sex", "age"])[:]
    found = {"sex": [sex or UNKNOWN for sex in rows["sex"]], "age": [age_band(age) for age in rows["age"]]}
    devices = _devices(context)
    return found | ({"device": [devices.get(name, UNKNOWN) for name in rows["record_id"]]} if devices else {})


def subgroup_rows(
    scores: np.ndarray,
    targets: np.ndarray,
    label_names: Sequence[str],
    groups: Sequence[Hashable],
    of_records: Mapping[str, Sequence[str]],
    thresholds: np.ndarray | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each group of each attribute, and for all records: counts, and the means with their intervals.

    Args:
        scores, targets, label_names, groups, thresholds, seed: as in `multilabel.judge`.
        of_records: attribute to the group of each record.
        num_resamples: within each group, `NUM_RESAMPLES` at most.

    Returns:
        Rows with `attribute`, `group`, `num_records`, `num_patients`, `num_classes` (that have both labels in the
        group, over which the mean goes: means over different classes do not compare), `macro_auroc`, its bounds,
        `macro_auprc`, `macro_f1`, and `note` where there is no interval, as with fewer than `FEWEST_PATIENTS`.
    """
    return [
        {"attribute": attribute, "group": group}
        | _row(scores[rows], targets[rows], label_names, [groups[r] for r in rows], thresholds, num_resamples, seed)
        for attribute, group, rows in _parts(of_records, len(scores))
    ]


def sampled_subgroups(
    of_records: Mapping[str, Sequence[str]],
    people: Sequence[Hashable],
    judge: Callable[[np.ndarray, int], Sampled],
    num_resamples: int = NUM_RESAMPLES,
) -> list[dict[str, Any]]:
    """Rows as `subgroup_rows` makes them, for figures that are no AUROC.

    Args:
        of_records: attribute to the group of each record.
        people: the patient of each record.
        judge: record numbers, and a number of resamples, to the figures of these records.
        num_resamples: within each group, `NUM_RESAMPLES` at most.

    Returns:
        Rows with `attribute`, `group`, `num_records`, `num_patients`, each figure with its bounds, and `note`.
    """
    rows = []
    for attribute, group, members in _parts(of_records, len(people)):
        num_patients = len({people[member] for member in members})
        resamples, note = _resamples_within(num_patients, num_resamples)
        judged = judge(members, resamples)
        figures = {key: value for key, value in judged.figures().items() if key not in judged.facts}
        row = {"attribute": attribute, "group": group, "num_records": len(members), "num_patients": num_patients}
        row |= {key: value for key, value in figures.items() if not key.endswith("_note")}
        rows.append(row | {"note": next(iter(judged.notes.values()), note)})
    return rows


def rows_attributes(context: EvaluationContext, rows: Sequence[int]) -> dict[str, list[str]]:
    """`attributes` of some records of the judged split, by their numbers."""
    of_split = attributes(context, context.split)
    return {attribute: [groups[row] for row in rows] for attribute, groups in of_split.items()}


def task_subgroups(
    context: EvaluationContext, task: LabelTask, scores: np.ndarray, thresholds: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """`subgroup_rows` of the judged records of a task, whose `(n, C)` scores are given."""
    test = task.splits["test"]
    of_records = {
        attribute: [names[row] for row in test.rows.tolist()]
        for attribute, names in attributes(context, test.source_split).items()
    }
    return subgroup_rows(
        scores, test.targets, task.label_names, test.patients(context), of_records, thresholds, context.num_resamples,
        context.seed,
    )  # fmt: skip


def _row(
    scores: np.ndarray, targets: np.ndarray, label_names: Sequence[str], groups: list[Hashable],
    thresholds: np.ndarray | None, num_resamples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    resamples, note = _resamples_within(len(set(groups)), num_resamples)
    judged = judge(scores, targets, label_names, groups, thresholds, resamples, seed)
    figures = judged.figures()
    row = {"num_records": judged.num_records, "num_patients": judged.num_patients}
    row["num_classes"] = len(label_names) - len(judged.left_out)
    for metric in METRICS:
        keys = (f"macro_{metric}", f"macro_{metric}_low", f"macro_{metric}_high")
        row |= {key: figures.get(key) for key in keys if metric == "auroc" or not key.endswith(("_low", "_high"))}
    return row | {"note": judged.note or note}


def _resamples_within(num_patients: int, num_resamples: int) -> tuple[int, str]:
    """How many resamples a group of so many patients gets, and why it gets none."""
    if num_resamples and num_patients < FEWEST_PATIENTS:
        return 0, f"no interval: patients {num_patients}, at least {FEWEST_PATIENTS} are needed"
    return min(num_resamples, NUM_RESAMPLES), ""


def _parts(of_records: Mapping[str, Sequence[str]], num_records: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Attribute, group and the numbers of its records; all records first."""
    yield "all", "all", np.arange(num_records)
    for attribute, names in of_records.items():
        named = np.asarray(names, dtype=object)
        for group in _in_order(attribute, set(names)):
            yield attribute, group, np.flatnonzero(named == group)


def _in_order(attribute: str, names: set[str]) -> list[str]:
    order = {band: number for number, band in enumerate(AGE_BANDS)}
    known = sorted(names - {UNKNOWN}, key=lambda name: (order.get(name, 0) if attribute == "age" else 0, name))
    return known + ([UNKNOWN] if UNKNOWN in names else [])


def _devices(context: EvaluationContext) -> dict[str, str]:
    """The device of each record, by its name, where PTB-XL's table is at hand; else empty."""
    path = Path(context.data_dir) / TABLE_FILE if context.data_dir else None
    if context.source != "ptb_xl" or path is None or not path.is_file():
        return {}
    devices = {row.get("ecg_id"): " ".join(row.get("device").split()) for row in read_rows(path, ("ecg_id",))}
    return {record_id: device or UNKNOWN for record_id, device in devices.items()} if any(devices.values()) else {}
