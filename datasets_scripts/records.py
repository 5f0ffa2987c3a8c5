"""One ECG recording in memory (`ECGRecord`), the row it is stored as, and the reader of a record's files.

Behind this file there are only records: signals `(num_leads, num_samples)` in mV with their lead names and their
sampling rate in Hz. A stored row keeps the integers as they were read, with gain and offset per lead, so that a corpus
takes half the disk and every reader computes the same bits: `mV = (digital - offset) / gain` in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets_scripts.report_text import text_key

if TYPE_CHECKING:
    import datasets

ROW_FORMAT_VERSION = 2  # part of every cache key: raise it when the columns or their meaning change
DIGITAL_NAN = -32768  # the int16 that stands for "no sample" (WFDB's own sentinel for 16 bits)
_SEXES = ("male", "female")


@dataclass(frozen=True, eq=False)
class ECGRecord:
    """One ECG recording with its metadata.

    Attributes:
        signal: `(num_leads, num_samples)` float32 in mV; NaN where there is no sample. None may be given where
            `digital` is: the millivolts are then computed whenever they are asked for, and never kept.
        leads: one name per row of `signal`, as the source spells it.
        sampling_rate: samples per second (Hz).
        text: the text chosen for training, empty until one is chosen.
        report: the report as the source gives it, in its own language.
        statements: English label statements in plain words.
        labels: the names of the labels that hold.
        record_id, patient_id: the source's identifiers as strings.
        age: in years, None if not known; 90 stands for "over 89".
        sex: `"male"`, `"female"` or None.
        digital: int16 `(num_leads, num_samples)`, the integers as read, -32768 for "no sample"; or None.
        gain, offset: float32 `(num_leads,)`, with `mV = (digital - offset) / gain`; given exactly when `digital` is.
        repairs: what reading had to mend or leave out, each as `"rule"` or `"rule: detail"`; reports count the rules.

    Raises:
        ValueError: if shapes, lead names, sampling rate, age or sex make no sense.

    >>> record = ECGRecord(signal=np.zeros((2, 500)), leads=("I", "II"), sampling_rate=250)
    >>> record.num_samples, record.duration, record.signal.dtype.name
    (500, 2.0, 'float32')
    """

    signal: np.ndarray | None
    leads: tuple[str, ...]
    sampling_rate: float
    text: str = ""
    report: str = ""
    statements: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    record_id: str = ""
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    digital: np.ndarray | None = None
    gain: np.ndarray | None = None
    offset: np.ndarray | None = None
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._set(
            leads=_names("leads", self.leads),
            repairs=_names("repairs", self.repairs),
            statements=_names("statements", self.statements),
            labels=_names("labels", self.labels),
            sampling_rate=_positive_rate(self.sampling_rate),
            age=_plausible_age(self.age),
        )
        if self.sex is not None and self.sex not in _SEXES:
            raise ValueError(f"sex: expected 'male', 'female' or None, got {self.sex!r}")
        if self.signal is None and self.digital is not None:
            object.__delattr__(self, "signal")  # from now on __getattr__ computes it
            _check_signal_shape(np.asarray(self.digital), self.leads)
        else:
            self._set(signal=np.asarray(self.signal, dtype=np.float32))
            _check_signal_shape(self.signal, self.leads)
        self._check_digital()

    def __getattr__(self, name: str) -> Any:
        """The millivolts of a record that holds only integers; every other attribute is there, or an error."""
        if name == "signal" and self.__dict__.get("digital") is not None:
            return digital_to_millivolt(self.digital, self.gain, self.offset)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen; only __post_init__ comes here

    def _check_digital(self) -> None:
        present = [name for name in ("digital", "gain", "offset") if getattr(self, name) is not None]
        if not present:
            return
        if len(present) < 3:
            raise ValueError(f"digital, gain and offset belong together: expected all three, got only {present}")
        digital = np.asarray(self.digital)
        expected = self.signal.shape if "signal" in self.__dict__ else digital.shape
        if digital.dtype != np.int16 or digital.shape != expected:
            raise ValueError(f"digital: expected int16 {expected}, as the signal, got {digital.dtype} {digital.shape}")
        self._set(digital=digital, gain=_per_lead("gain", self.gain, len(self.leads)))
        self._set(offset=_per_lead("offset", self.offset, len(self.leads)))
        if not np.all(self.gain != 0):
            raise ValueError(f"gain: expected a number other than 0 for every lead, got {self.gain.tolist()}")

    @classmethod
    def from_digital(
        cls,
        digital: np.ndarray,
        gain: np.ndarray,
        offset: np.ndarray,
        leads: tuple[str, ...],
        sampling_rate: float,
        **metadata: Any,
    ) -> ECGRecord:
        """The record of int16 samples `(num_leads, num_samples)`; `gain` (integers per mV), `offset (num_leads,)`.

        `metadata` are the other fields of `ECGRecord`. Raises ValueError as `ECGRecord` does.
        """
        digital = np.asarray(digital)
        if digital.ndim != 2:
            raise ValueError(f"digital: expected (num_leads, num_samples), got shape {digital.shape}")
        return cls(None, leads, sampling_rate, digital=digital, gain=gain, offset=offset, **metadata)

    def with_metadata(self, **fields: Any) -> ECGRecord:
        """This record with other fields, checked as ever. Unlike `dataclasses.replace` it computes no millivolts."""
        kept = {field.name: self.__dict__.get(field.name) for field in dataclasses.fields(self)}
        return ECGRecord(**kept | fields)

    @property
    def stored(self) -> np.ndarray:
        """`(num_leads, num_samples)`: the integers where the record has them, else the millivolts."""
        return self.signal if self.digital is None else self.digital

    @property
    def num_leads(self) -> int:
        """Number of leads."""
        return self.stored.shape[0]

    @property
    def num_samples(self) -> int:
        """Number of samples per lead."""
        return self.stored.shape[1]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate


def digital_to_millivolt(digital: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`(digital - offset) / gain` in float32, NaN where `digital` is -32768.

    `digital (num_leads, num_samples)` int16, `gain` and `offset (num_leads,)`. Every step is one float32 operation in
    this order, which IEEE 754 fixes to the bit: torch computes the same signal from the same row.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a gain of 0 is refused by ECGRecord with a sentence
        millivolt = (digital.astype(np.float32) - np.float32(offset)[:, None]) / np.float32(gain)[:, None]
    millivolt[digital == DIGITAL_NAN] = np.nan
    return millivolt


def row_features(signal_dtype: str = "int16", num_values: int | None = None) -> datasets.Features:
    """The columns of a stored row, the same for every data set; `signal_dtype` is `"int16"` or `"float32"`.

    `signal` is lead-major and flat: `num_leads * num_samples` values, of any number, or `num_values` in every row.
    Raises ValueError for another dtype.
    """
    from datasets import Features, List, Value

    if signal_dtype not in ("int16", "float32"):
        raise ValueError(f"signal_dtype: expected 'int16' or 'float32', got {signal_dtype!r}")
    strings = ("record_id", "patient_id", "text", "report", "sex", "text_key")
    return Features(
        {
            **{name: Value("string") for name in strings},
            **{name: List(Value("string")) for name in ("leads", "statements", "labels", "repairs")},
            **{name: List(Value("float32")) for name in ("gain", "offset")},
            "signal": List(Value(signal_dtype), length=-1 if num_values is None else num_values),
            "sampling_rate": Value("float64"),
            "num_samples": Value("int32"),
            "age": Value("float64"),
        }
    )


def record_to_row(record: ECGRecord, signal_dtype: str | None = None) -> dict[str, Any]:
    """The stored row of a record: `signal` flat and lead-major, with `gain` and `offset` per lead.

    The integers are stored where the record has them; else float32 mV with gain 1 and offset 0. `signal_dtype` forces
    one of the two; ValueError if it asks for int16 and the record has none.
    """
    if signal_dtype is None:
        signal_dtype = "float32" if record.digital is None else "int16"
    if signal_dtype == "int16" and record.digital is None:
        raise ValueError(f"record {record.record_id!r}: int16 was asked for, but the record holds only float32 mV")
    stored = record.digital if signal_dtype == "int16" else record.signal
    plain = signal_dtype == "float32"
    return {
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "signal": np.ascontiguousarray(stored).reshape(-1),  # (num_leads, num_samples) -> (num_leads * num_samples,)
        "gain": np.ones(record.num_leads, np.float32) if plain else record.gain,
        "offset": np.zeros(record.num_leads, np.float32) if plain else record.offset,
        "leads": list(record.leads),
        "sampling_rate": record.sampling_rate,
        "num_samples": record.num_samples,
        "text": record.text,
        "report": record.report,
        "statements": list(record.statements),
        "labels": list(record.labels),
        "age": record.age,
        "sex": record.sex,
        "repairs": list(record.repairs),
        "text_key": text_key(record.statements, record.report),
    }


def row_to_record(row: Mapping[str, Any]) -> ECGRecord:
    """The record of a stored row (as `record_to_row` made it, or as `datasets` gives it back): the same float32 bits.

    Raises ValueError if the length of `signal` is not `len(leads) * num_samples`.
    """
    leads, num_samples = tuple(row["leads"]), int(row["num_samples"])
    stored = np.asarray(row["signal"])
    if stored.size != len(leads) * num_samples:
        raise ValueError(
            f"row {row['record_id']!r}: expected {len(leads)} leads * {num_samples} samples, got {stored.size} values"
        )
    metadata = {name: row[name] for name in ("text", "report", "record_id", "patient_id", "age", "sex")}
    metadata |= {name: tuple(row[name]) for name in ("statements", "labels", "repairs")}
    gain, offset = np.asarray(row["gain"], np.float32), np.asarray(row["offset"], np.float32)
    if _is_plain_millivolt(stored, gain, offset):
        signal = stored.astype(np.float32).reshape(len(leads), num_samples)
        return ECGRecord(signal, leads, float(row["sampling_rate"]), **metadata)
    digital = stored.astype(np.int16).reshape(len(leads), num_samples)
    return ECGRecord.from_digital(digital, gain, offset, leads, float(row["sampling_rate"]), **metadata)


def _is_plain_millivolt(stored: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> bool:
    return stored.dtype.kind == "f" and bool(np.all(gain == 1)) and not np.any(offset)


def read_record(
    path: str | PathLike[str],
    *,
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    patient_id: str = "drop",
    salt: str | None = None,
) -> ECGRecord:
    """Read one recording from its file: WFDB, DICOM ECG, HL7 aECG, GE MUSE XML, EDF, CSV or .npy.

    The file is checked before anything that it names or announces is opened or allocated. Names, birth dates and
    hospital numbers never enter the record.

    Args:
        path: the file; of a WFDB record its header, its signals file, or their name without extension.
        sampling_rate, leads, unit: for formats that do not say them (CSV, .npy).
        patient_id: `"drop"`, `"keep"` (as in the file) or `"hash"`, a hash with the secret `salt`.

    Raises:
        FileNotFoundError, ValueError: with one sentence that says expected, got and what to do.
        ImportError: where the format needs a package that is not installed, with the command that installs it.
    """
    from datasets_scripts.readers.formats import read_file  # the readers make records: they import this file

    return read_file(path, sampling_rate=sampling_rate, leads=leads, unit=unit, patient_id=patient_id, salt=salt)


def _names(field: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{field}: expected a sequence of strings, got the single string {values!r}")
    names = tuple(values)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{field}: expected strings, got {name!r}")
    return names


def _positive_rate(sampling_rate: float) -> float:
    if not (math.isfinite(sampling_rate) and sampling_rate > 0):
        raise ValueError(f"sampling_rate: expected a positive number of samples per second (Hz), got {sampling_rate!r}")
    return float(sampling_rate)


def _plausible_age(age: float | None) -> float | None:
    if age is None or math.isnan(age):  # columns of numbers write NaN for "not known"
        return None
    if not 0 <= age <= 150:
        raise ValueError(f"age: expected years between 0 and 150 (90 for 'over 89') or None, got {age!r}")
    return float(age)


def _check_signal_shape(signal: np.ndarray, leads: tuple[str, ...]) -> None:
    if signal.ndim == 2 and signal.shape[0] == len(leads) > 0 and signal.shape[1] > 0:
        return
    hint = ""
    if signal.ndim == 2 and signal.shape[1] == len(leads):
        hint = "; this array looks transposed: pass signal.T"
    raise ValueError(f"signal: expected (num_leads={len(leads)}, num_samples > 0), got shape {signal.shape}{hint}")


def _per_lead(field: str, values: Any, num_leads: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    if values.shape != (num_leads,) or not np.all(np.isfinite(values)):
        raise ValueError(f"{field}: expected {num_leads} finite numbers, one per lead, got {values.tolist()}")
    return values
