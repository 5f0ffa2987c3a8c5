"""Identification: whose ECG is it? The second task of ESI (arXiv 2405.19366, whose own protocol is not public).

Some recordings are enrolled, others are probes. A probe is looked for in the gallery of all enrolled recordings by
cosine similarity of the embeddings: rank-1 and rank-5 accuracy (gallery and probe as in arXiv 2306.06196). Verification
asks of one probe and one claimed person whether they belong together: the equal error rate, where as many impostors are
let in as rightful persons are turned away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .embedding import unit_length
from .enrolment import Enrolment, check_disjoint, choose_recordings, read_patients, read_split
from .metrics import hits_at_k
from .results import Result
from .sampled import Sampled, add_sampled
from .subgroups import rows_attributes, sampled_subgroups
from .task_results import empty_result, tell_leakage
from .verification import verification_pairs

if TYPE_CHECKING:
    from .context import EvaluationContext
    from .leakage import Leakage

RANKS = (1, 5)
_PROBES_SAID = {"all": "all others are", "one": "the second is, as the only ones,"}
FEWEST_PERSONS = 10  # below, a resample may hold one person alone: no interval
_ROWS_AT_ONCE = 1024


def run(
    context: EvaluationContext,
    *,
    probes: str = "all",
    split_dir: str | None = None,
    training_patients: str | None = None,
    layer: str = "projected",
    subgroups: bool = True,
) -> Result:
    """Identify persons among the records of a split; persons with one recording take no part.

    Args:
        probes: "all": the first recording of a person is enrolled, all others are probes; "one": only the second is.
        split_dir: folder with gallery.csv and probe.csv (and train.csv), which then say who is enrolled; with
            --split all, since they choose among all records.
        training_patients: whom the model was trained on, so that this is checked: a prepared folder (its training
            split), a CSV with a column patient_id, or a text file with one on each line. Without it the data set's own
            training split is taken, where another split is judged.
        layer: which embeddings are compared: projected (in the space of the texts) or pooled (the encoder's own).
        subgroups: also judge by sex, age band and device of the probes; the gallery stays whole.

    Raises:
        ValueError: for persons that the model was trained on, and as `identification`.
    """
    rows = context.rows()
    patient_ids, record_ids = list(rows["patient_id"]), list(rows["record_id"])
    if split_dir is None:
        enrolment, left_out = choose_recordings(patient_ids, probes), {}
        chosen = f"The first recording of a person is enrolled, {_PROBES_SAID[probes]} probes."
    else:
        enrolment, left_out, patient_ids = read_split(split_dir, record_ids, patient_ids)
        chosen = "Enrolled recordings and probes are those of the given split files."
    taking_part = np.concatenate([enrolment.gallery, enrolment.probes])
    chooses_itself = split_dir is not None and context.split == "all"
    split = context.split_of([record_ids[row] for row in taking_part]) if chooses_itself else context.split
    leakage = context.leakage(split)
    disjoint = _disjoint(context, [patient_ids[row] for row in taking_part], training_patients, leakage)

    def judge(role: str, num_resamples: int) -> Sampled:
        embeds = context.ecg_embeds(role=role, layer=layer)
        return sampled_identification(embeds, patient_ids, enrolment, num_resamples, context.seed)

    protocol = (
        f"{chosen} A probe is looked for in the gallery by cosine similarity of the {layer} embeddings; verification "
        f"judges all pairs of a probe and an enrolled recording. {disjoint}"
    )
    settings = {"probes": probes, "layer": layer, "has_split_files": split_dir is not None}
    result = empty_result(context, "identification", protocol, **settings)
    result.left_out = left_out
    tell_leakage(result, context, split)
    if training_patients is not None:
        result.seen_in_training, result.leakage = False, disjoint
    add_sampled(result, judge, list(context.models()), context.num_resamples)
    counts = "{num_persons:,} persons, {num_probes:,} probes, {num_gallery:,} enrolled recordings"
    result.notes += [counts.format(**result.trained), disjoint]
    if subgroups:
        embeds = context.ecg_embeds(layer=layer)
        result.tables["Subgroups"] = sampled_subgroups(
            rows_attributes(context, enrolment.probes), [patient_ids[row] for row in enrolment.probes],
            lambda group, number: sampled_identification(
                embeds, patient_ids, Enrolment(enrolment.gallery, enrolment.probes[group]), number, context.seed
            ),
            context.num_resamples,
        )  # fmt: skip
    return result


def identification(
    ecg_embeds: np.ndarray,
    patient_ids: Sequence[str | None],
    enrolment: Enrolment,
    num_resamples: int = 1000,
    seed: int = 0,
    prefix: str = "",
) -> dict[str, Any]:
    """Judge embeddings as identities.

    Args:
        ecg_embeds: `(N, P)`, one row per record.
        patient_ids: the person of each record.
        enrolment: record numbers, as `choose_recordings` gives them. A person may be enrolled more than once: then the
            best of its recordings counts.
        num_resamples: bootstrap resamples of persons; 0: no intervals.
        seed: of the resamples.
        prefix: put before each key of the result.

    Returns:
        `rank1`, `rank5`: share of probes whose person is the first, among the first five, of the gallery's (recordings
        of equal similarity in random order, in expectation). `equal_error_rate`, over all pairs of a probe and an
        enrolled recording. Each with `_low` and `_high` of its 95 % interval: persons are drawn with replacement; for
        the ranks the gallery stays whole, since a smaller one would be easier. `num_persons` (that are probes),
        `num_gallery`, `num_probes`, `num_genuine_pairs`, `num_impostor_pairs`, `num_enrolled_persons`, and
        `chance_rank1`, what guessing gives.

    Raises:
        ValueError: where the arguments do not fit, a recording is both enrolled and probe, or the person of a probe is
            not enrolled.
    """
    return sampled_identification(ecg_embeds, patient_ids, enrolment, num_resamples, seed).figures(prefix)


def sampled_identification(
    ecg_embeds: np.ndarray,
    patient_ids: Sequence[str | None],
    enrolment: Enrolment,
    num_resamples: int,
    seed: int = 0,
) -> Sampled:
    """The figures of `identification` with their resamples, for paired differences. Arguments and errors as there."""
    persons, gallery, probes = _check(ecg_embeds, patient_ids, enrolment)
    embeds = unit_length("ecg_embeds", ecg_embeds)
    gallery_persons, probe_persons = persons[gallery], persons[probes]
    hits = _hits(embeds[probes], embeds[gallery], probe_persons, gallery_persons)  # (P, ranks)
    pairs = verification_pairs(embeds[probes], embeds[gallery], probe_persons, gallery_persons, seed)
    num_persons, num_enrolled = len(np.unique(probe_persons)), len(np.unique(gallery_persons))
    resamples = num_resamples if num_persons >= FEWEST_PERSONS else 0
    names = [f"rank{rank}" for rank in RANKS]
    sampled = Sampled.of(names, lambda drawn: hits[drawn].mean(axis=0), probe_persons.tolist(), resamples, seed)
    sampled = sampled | pairs.sampled(resamples, seed)
    facts = {
        "num_persons": num_persons,
        "num_gallery": len(gallery),
        "num_probes": len(probes),
        "num_genuine_pairs": len(pairs.genuine),
        "num_impostor_pairs": len(pairs.impostor),
        "num_enrolled_persons": num_enrolled,
        "chance_rank1": 1 / num_enrolled,
    }
    note = f"no interval: {num_persons} persons; at least {FEWEST_PERSONS} are needed"
    notes = dict.fromkeys(sampled.values, note) if num_resamples > resamples else {}
    return sampled | Sampled({}, facts=facts, notes=notes)


# ----- ranks ---------------------------------------------------------------------------------------------------------


def _hits(
    probes: np.ndarray, gallery: np.ndarray, probe_persons: np.ndarray, gallery_persons: np.ndarray
) -> np.ndarray:
    """`(P, ranks)`: the chance that a person's recording is among the first ones."""
    enrolled, columns = np.unique(gallery_persons, return_inverse=True)
    parts = []
    for start in range(0, len(probes), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        best = np.full((len(probes[rows]), len(enrolled)), -np.inf, np.float32)  # a person counts once
        np.maximum.at(best.T, columns, (probes[rows] @ gallery.T).T)
        parts.append(hits_at_k(best, probe_persons[rows], enrolled, RANKS))
    return np.concatenate(parts)


# ----- steps ---------------------------------------------------------------------------------------------------------


def _disjoint(
    context: EvaluationContext, judged: Sequence[str | None], training_patients: str | None, leakage: Leakage
) -> str:
    """Check that nobody of `judged` was trained on, and say what was checked."""
    if training_patients is not None:
        number = check_disjoint(judged, read_patients(training_patients))
        return f"None of the {number} persons is among the given training patients (checked)."
    if context.split in ("validation", "test") and context.has_split("train"):
        number = check_disjoint(judged, context.rows("train")["patient_id"])
        among = f" (the first {context.limit} records of it)" if context.limit is not None else ""
        return f"None of the {number} persons is in the data set's training split{among} (checked)."
    if leakage.seen:
        raise ValueError(
            f"identification: expected persons that the model has not been trained on, but {leakage.line} "
            "Say whom it was trained on (--training_patients), so that this can be checked."
        )
    return "Whether a person was in the model's training could NOT be checked: no training patients were given."


def _check(
    ecg_embeds: np.ndarray, patient_ids: Sequence[str | None], enrolment: Enrolment
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Persons as numbers `(N,)` (-1: not known), gallery and probes."""
    gallery, probes = np.asarray(enrolment.gallery), np.asarray(enrolment.probes)
    if len(patient_ids) != len(ecg_embeds):
        raise ValueError(f"patient_ids: expected one for each of {len(ecg_embeds)} embeddings, got {len(patient_ids)}.")
    if both := sorted(set(gallery.tolist()) & set(probes.tolist())):
        raise ValueError(f"enrolment: expected a recording to be enrolled or a probe, got record {both[0]} as both.")
    numbers = {patient: number for number, patient in enumerate(sorted({p for p in patient_ids if p is not None}))}
    persons = np.array([-1 if patient is None else numbers[patient] for patient in patient_ids])
    lost = [patient_ids[row] for row in probes if persons[row] < 0 or persons[row] not in persons[gallery]]
    if lost or not len(probes):
        raise ValueError(
            f"enrolment: expected probes of enrolled persons, got {len(probes)} probes, of which {len(lost)} of "
            f"persons not enrolled ({', '.join(map(str, lost[:5]))})."
        )
    return persons, gallery, probes
