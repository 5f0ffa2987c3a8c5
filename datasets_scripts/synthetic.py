"""The synthetic corpus: 12-lead recordings of a model heart, with findings, age, sex and a report, from a seed.

An ordinary source like the others, without a download. All leads are seen from one cardiac dipole, so
Einthoven's and Goldberger's laws hold; a finding is named exactly when the signal shows it. Chance comes only from the
seed: record `i` of a split is the same whichever others are made, and splits share no patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts import synthetic_beats, synthetic_findings, synthetic_rhythm, synthetic_signal
from datasets_scripts.records import ECGRecord
from datasets_scripts.report_text import findings_text
from datasets_scripts.sources import SPLITS, Entry, SourceFacts
from datasets_scripts.synthetic_findings import label_names, label_prompts

__all__ = [
    "FACTS",
    "Patient",
    "generate_record",
    "label_names",
    "label_prompts",
    "list_entries",
    "read_entry",
    "sample_patient",
    "tables",
]

FACTS = SourceFacts(
    title="Synthetic 12-lead ECGs of a model heart",
    license="apache-2.0",
    citation="Made by esi-ecg from a seed; no patient is in it.",
    reports_are_labels=True,
)
DEFAULT_NUM_RECORDS = {"train": 4000, "validation": 500, "test": 500}
MIN_DURATION = 5.0  # seconds: the least in which a slow rhythm shows that it is regular
MIN_SAMPLING_RATE = 50.0  # Hz: below it a QRS complex is four samples or fewer
_AGE_RANGES = {synthetic_findings.NORMAL: (18, 75), synthetic_findings.SINUS_TACHYCARDIA: (18, 90)}


@dataclass(frozen=True)
class Patient:
    """What a patient's recordings share: age in years, sex, findings and anatomy."""

    age: int
    sex: str
    findings: tuple[str, ...]
    anatomy: synthetic_beats.Anatomy


def sample_patient(rng: np.random.Generator, findings: tuple[str, ...] | None = None) -> Patient:
    """A patient drawn as in the corpus, with `findings` where they are given."""
    findings = synthetic_findings.sample_findings(rng) if findings is None else findings
    youngest, oldest = next((_AGE_RANGES[name] for name in findings if name in _AGE_RANGES), (35, 92))
    age = int(rng.integers(youngest, oldest + 1))
    return Patient(age, str(rng.choice(["male", "female"])), findings, synthetic_beats.sample_anatomy(rng))


def list_entries(
    data_dir: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    num_records: int | None = None,
    sampling_rate: float = 500,
    duration: float = 10.0,
) -> Iterator[Entry]:
    """All records, split by split; every second patient has two, with the same findings.

    `data_dir` is not used: nothing is read. `num_records`, of each split, is 4000, 500 and 500 for train, validation
    and test if not given; fewer are the first of more. `sampling_rate` in Hz, `duration` in seconds. Raises ValueError
    for a negative seed or number, or a rate or duration too small.

    >>> entry = next(list_entries(num_records=2))
    >>> entry.record_id, entry.split, entry.index, entry.fields["patient_id"]
    ('synthetic-0-train-000000', 'train', 0, 'synthetic-0-train-p000000')
    """
    _check_whole("seed", seed)
    if num_records is not None:
        _check_whole("num_records", num_records)
    _check_sampling(sampling_rate, duration)
    sizes = {name: DEFAULT_NUM_RECORDS[name] if num_records is None else num_records for name in SPLITS}
    return (_entry(name, index, seed) for name in SPLITS for index in range(sizes[name]))


def read_entry(
    entry: Entry, *, seed: int = 0, sampling_rate: float = 500, duration: float = 10.0, **_: Any
) -> ECGRecord:
    """The record of an entry, made from the seed, the split and the index; its text is `findings_text`.

    >>> record = read_entry(next(list_entries()), sampling_rate=100)
    >>> record.signal.shape, record.record_id
    ((12, 1000), 'synthetic-0-train-000000')
    """
    _check_sampling(sampling_rate, duration)
    return _record(entry.split, entry.index, seed, sampling_rate, duration)


def tables(data_dir: str | PathLike[str] | None = None, **_: Any) -> tuple[Path, ...]:
    """The code that makes the records: they depend on nothing else."""
    return tuple(sorted(Path(__file__).parent.glob("synthetic*.py")))


def _entry(split: str, index: int, seed: int) -> Entry:
    record_id, patient_id = _identifiers(split, index, seed)
    return Entry(record_id, f"synthetic/{record_id}", split, {"patient_id": patient_id}, index=index)


def _identifiers(split: str, index: int, seed: int) -> tuple[str, str]:
    """`record_id` and `patient_id` of record `index` of a split."""
    return f"synthetic-{seed}-{split}-{index:06d}", f"synthetic-{seed}-{split}-p{_patient_index(index):06d}"


def _patient_index(index: int) -> int:
    """Records 0 and 1 of each three belong to one patient, record 2 to the next."""
    return index // 3 * 2 + (index % 3 == 2)


def _record(split: str, index: int, seed: int, sampling_rate: float, duration: float) -> ECGRecord:
    """Record `index` of a split."""
    stream = [seed, SPLITS.index(split)]
    patient = sample_patient(np.random.default_rng([*stream, 0, _patient_index(index)]))
    record_id, patient_id = _identifiers(split, index, seed)
    return _recording(
        patient,
        np.random.default_rng([*stream, 1, index]),
        sampling_rate=sampling_rate,
        duration=duration,
        record_id=record_id,
        patient_id=patient_id,
    )


def generate_record(
    rng: np.random.Generator | int = 0,
    findings: Iterable[str] | None = None,
    *,
    heart_rate: float | None = None,
    age: int | None = None,
    sex: str | None = None,
    sampling_rate: float = 500,
    duration: float = 10.0,
    noise_level: float = 1.0,
    record_id: str = "synthetic",
    patient_id: str = "synthetic",
) -> ECGRecord:
    """One recording, with what is given fixed and the rest drawn from `rng` (a generator, or a seed).

    `findings` are names from `label_names()`; a missing rhythm is filled in by `heart_rate` (beats per minute), and
    `normal ECG` is added to sinus rhythm alone. `noise_level` 0 is the heart without noise and wander. Raises
    ValueError for unknown or contradicting findings, or a rate that they do not allow.

    >>> record = generate_record(7, ["left bundle branch block"], heart_rate=60, age=71, sex="female")
    >>> record.statements, record.text
    (('sinus rhythm', 'left bundle branch block'), \
'This patient is a 71 year-old Female. ECG Findings: sinus rhythm, left bundle branch block.')
    """
    _check_sampling(sampling_rate, duration)
    rng = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    patient = sample_patient(rng, _wanted_findings(rng, findings, heart_rate))
    patient = Patient(patient.age if age is None else age, sex or patient.sex, patient.findings, patient.anatomy)
    return _recording(
        patient,
        rng,
        heart_rate=heart_rate,
        sampling_rate=sampling_rate,
        duration=duration,
        noise_level=noise_level,
        record_id=record_id,
        patient_id=patient_id,
    )


def _wanted_findings(
    rng: np.random.Generator, findings: Iterable[str] | None, heart_rate: float | None
) -> tuple[str, ...]:
    if findings is not None:
        return synthetic_findings.complete_findings(findings, heart_rate)
    if heart_rate is None:
        return synthetic_findings.sample_findings(rng)
    rhythm = synthetic_findings.complete_findings((), heart_rate)[0]
    drawn = synthetic_findings.sample_findings(rng, rhythm)
    possible = synthetic_rhythm.allowed_rates(drawn)[1] >= heart_rate
    return drawn if possible else synthetic_findings.complete_findings((), heart_rate)


def _recording(
    patient: Patient,
    rng: np.random.Generator,
    *,
    sampling_rate: float,
    duration: float,
    heart_rate: float | None = None,
    noise_level: float = 1.0,
    record_id: str,
    patient_id: str,
) -> ECGRecord:
    """One recording of `patient`."""
    findings = patient.findings
    heart_rate = synthetic_rhythm.sample_rate(findings, rng) if heart_rate is None else heart_rate
    synthetic_rhythm.check_rate(findings, heart_rate)
    report = synthetic_findings.write_report(findings, round(heart_rate), rng)
    dipole = _dipole(patient, heart_rate, sampling_rate, duration, rng)
    level = noise_level * (0.6 if synthetic_findings.LOW_VOLTAGE in findings else 1.0)
    signal = synthetic_signal.independent_leads(dipole)
    signal += synthetic_signal.noise(rng, level, sampling_rate, dipole.shape[1])
    return ECGRecord.from_digital(
        synthetic_signal.to_digital(signal),
        np.full(12, synthetic_signal.GAIN, dtype=np.float32),
        np.zeros(12, dtype=np.float32),
        synthetic_signal.LEADS,
        sampling_rate,
        report=report,
        text=findings_text(findings, patient.age, patient.sex),
        statements=findings,
        labels=findings,
        age=patient.age,
        sex=patient.sex,
        record_id=record_id,
        patient_id=patient_id,
    )


def _dipole(
    patient: Patient, heart_rate: float, sampling_rate: float, duration: float, rng: np.random.Generator
) -> np.ndarray:
    """The heart's dipole over the recording, `(3, num_samples)` in mV."""
    findings, num_samples = patient.findings, round(duration * sampling_rate)
    beat = synthetic_beats.measure_beat(findings, patient.anatomy, heart_rate)
    beats = synthetic_rhythm.sample_beats(findings, heart_rate, duration, beat.qt, rng)
    breath = (rng.uniform(0.2, 0.3), rng.uniform(0, 2 * np.pi))
    waves = [_placed(synthetic_beats.conducted_beat(findings, beat), beats.conducted - beat.qrs / 2, breath, rng)]
    if synthetic_findings.ATRIAL_FIBRILLATION not in findings:
        onsets = beats.conducted - beat.qrs / 2 + rng.normal(0, 0.002, size=len(beats.conducted))
        waves.append(_placed(synthetic_beats.p_wave(beat), onsets, breath, rng))
    if len(beats.premature):
        early = synthetic_beats.premature_beat(findings, beat)
        waves.append(_placed(early, beats.premature - synthetic_beats.PREMATURE_QRS / 2, breath, rng))
    if synthetic_findings.PACING in findings:
        spike = synthetic_beats.pacing_spike(beat, sampling_rate)
        waves.append(_placed(spike, beats.conducted - beat.qrs / 2, breath, rng))
    dipole = synthetic_signal.render_dipole(np.vstack(waves), sampling_rate, num_samples)
    if synthetic_findings.ATRIAL_FIBRILLATION in findings:
        size = 0.35 if synthetic_findings.LOW_VOLTAGE in findings else 1.0
        dipole += synthetic_signal.fibrillatory_waves(rng, size, sampling_rate, num_samples)
    return dipole


def _placed(waves: np.ndarray, onsets: np.ndarray, breath: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """`waves` at every onset; with the `breath` (Hz, phase) the heart turns by 2.5 degrees and its voltage by 4 %."""
    swing = np.sin(2 * np.pi * breath[0] * onsets + breath[1])
    size = 1 + 0.04 * swing + rng.normal(0, 0.012, size=len(onsets))
    turn = np.radians(2.5) * swing
    turned = np.zeros((len(onsets), 3, 3))
    turned[:, 0, 0] = turned[:, 1, 1] = np.cos(turn)
    turned[:, 1, 0], turned[:, 0, 1] = np.sin(turn), -np.sin(turn)
    turned[:, 2, 2] = 1
    return synthetic_signal.place_waves(waves, onsets, turned * size[:, None, None])


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{name}: expected a whole number of 0 or more, got {value!r}")


def _check_sampling(sampling_rate: float, duration: float) -> None:
    if not sampling_rate >= MIN_SAMPLING_RATE:
        raise ValueError(f"sampling_rate: expected at least {MIN_SAMPLING_RATE:g} Hz, got {sampling_rate!r}")
    if not duration >= MIN_DURATION:
        raise ValueError(f"duration: expected at least {MIN_DURATION:g} seconds, got {duration!r}")
