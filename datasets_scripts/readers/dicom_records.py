"""DICOM waveforms become records: 12-Lead, General and Ambulatory ECG (PS3.3 A.34, C.10.9; read with pydicom).

Rules:
- Of the multiplex groups the original one with the most leads, then the longest, is taken; others are left out and
  told.
- `mV = (sample * sensitivity * correction factor + baseline) * unit` (C.10.9.1.4); a channel that is no voltage is left
  out and told. The integers are kept.
- A padding value outside the range of the signal (the lowest or highest integer) stands for "no sample" wherever it is;
  any other one, such as 0, only where all leads hold it at once.
- `report` is the unformatted text of the waveform annotations. Names and dates of the file never leave this module.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_scripts.readers.calibration import (
    MAX_LEADS,
    check_size,
    checked_rate,
    millivolt_per_unit,
    record_of_integers,
    voltage_unit,
)
from datasets_scripts.readers.demographics import (
    IdentityRule,
    age_between,
    age_of,
    date_of,
    report_of,
    safe_statements,
    sex_of,
)
from datasets_scripts.readers.lead_codes import lead_of_code, plain_lead_name, told_name
from datasets_scripts.records import ECGRecord

MAX_BYTES = 2**28
MAX_ITEMS = 50_000  # of sequences: an annotation for every beat of half a day
ECG_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.9.1.1": "12-lead ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.2": "General ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.3": "Ambulatory ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.4": "General 32-bit ECG",
}
# not the deflated one: how much it unpacks to is not known before it is unpacked
BYTE_ORDERS = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
SAMPLE_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_HEADER_BYTES = 8  # of an element: where a file ends, reading one comes back empty, and that is no error
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_KNOWN_LABELS = ("RHYTHM", "MEDIAN BEAT", "MEDIAN", "REPRESENTATIVE BEAT", "AVERAGE BEAT")
_KEYWORDS = (
    "SOPClassUID",
    "WaveformSequence",
    "WaveformAnnotationSequence",
    "SpecificCharacterSet",
    "PatientID",
    "PatientAge",
    "PatientSex",
    "PatientBirthDate",
    "AcquisitionDateTime",
    "ContentDate",
    "StudyDate",
)
_IDENTITIES = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "AdmissionID",
    "ReferringPhysicianName",
)
_IDENTITIES += ("NameOfPhysiciansReadingStudy", "OperatorsName", "PerformingPhysicianName", "RequestingPhysician")
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, NotImplementedError)
_BROKEN += (struct.error, EOFError, OSError, RecursionError, AssertionError)


class _WholeReads(io.BytesIO):
    """A file in memory that does not give less than a value's length announces: pydicom would take it for the value."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and size > _HEADER_BYTES and len(data) < size:
            raise EOFError("a value is longer than the file")
        return data


@dataclass(frozen=True)
class _Channel:
    """One channel of a multiplex group; `gain` None where it is no voltage."""

    name: str
    gain: float | None
    offset: float


@dataclass(frozen=True)
class _Group:
    """One multiplex group, its samples still in bytes."""

    label: str
    is_derived: bool
    num_samples: int
    channels: tuple[_Channel, ...]
    item: Any

    @property
    def leads(self) -> list[int]:
        return [index for index, channel in enumerate(self.channels) if channel.gain is not None]

    def told(self) -> str:
        return f"left_out_group: {self.label} ({len(self.channels)} channels, {self.num_samples} samples)"


def read_dicom_record(path: Path, identify: IdentityRule) -> ECGRecord:
    """The ECG of a DICOM file. `identify` is an `identity_rule`.

    Raises FileNotFoundError or ValueError with one sentence: another kind of waveform, a broken length, no lead.
    ImportError where pydicom is not installed.
    """
    with _quiet_pydicom():
        data_set, byte_order = _read_data_set(path)
        groups = [_group(path, item, number) for number, item in enumerate(_items(path, data_set, "WaveformSequence"))]
        chosen = max((group for group in groups if _is_rhythm(group)), key=_rank, default=None)
        if chosen is None:
            raise ValueError(
                f"{path}: expected a group of original ECG channels in volts, got {len(groups)} groups without one"
            )
        repairs = [group.told() for group in groups if group is not chosen]
        repairs += [f"left_out_channel: {channel.name}" for channel in chosen.channels if channel.gain is None]
        rate = checked_rate(path, _number(path, chosen.item, "SamplingFrequency"))
        samples = _samples(path, chosen, byte_order)[chosen.leads]
        absent, padding_repairs = _absent(path, chosen, byte_order, samples)
        metadata, text_repairs = _metadata(path, data_set, identify)
    channels = [chosen.channels[index] for index in chosen.leads]
    return record_of_integers(
        path,
        samples,
        [channel.gain for channel in channels],
        [channel.offset for channel in channels],
        [channel.name for channel in channels],
        rate,
        absent,
        repairs=(*repairs, *padding_repairs, *text_repairs),
        **metadata,
    )


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """No warning of pydicom, which would spell out values of the file, among them names, to a screen or a log."""
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM needs pydicom: pip install 'esi-ecg[formats]'") from error
    logger = logging.getLogger("pydicom")
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def _read_data_set(path: Path) -> tuple[Any, str]:
    """The data set of an ECG and the byte order of its samples."""
    import pydicom

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: expected a DICOM file of at most {MAX_BYTES} bytes, got {size}; cut the recording")
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        raise ValueError(f"{path}: expected a DICOM file ('DICM' at byte 128), got something else")
    if sum(data.count(tag) for tag in _ITEM_TAGS) > MAX_ITEMS:
        raise ValueError(f"{path}: expected at most {MAX_ITEMS} items of sequences, got more; the file is damaged")
    try:
        # from memory: a broken length then reserves nothing, and shows
        meta = pydicom.filereader.read_partial(_WholeReads(data), stop_when=lambda tag, vr, length: True).file_meta
        syntax = str(meta.TransferSyntaxUID) if "TransferSyntaxUID" in meta else "none"
        if syntax not in BYTE_ORDERS:
            told = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "none that is known"
            raise ValueError(f"expected an uncompressed transfer syntax, got {told}")
        data_set = pydicom.dcmread(_WholeReads(data), force=False, specific_tags=[*_KEYWORDS, *_IDENTITIES])
        sop_class = str(data_set.get("SOPClassUID", "none"))
    except _broken() as error:
        raise ValueError(
            f"{path}: cannot be read as DICOM ({_reason(error)}); the file is damaged or no ECG"
        ) from error
    if sop_class not in ECG_CLASSES:
        known = sop_class.startswith("1.2.840.10008.") and sop_class.isprintable()  # damage may put a line end in it
        kind = pydicom.uid.UID(sop_class).name if known else "another class"
        raise ValueError(
            f"{path}: expected {', '.join(ECG_CLASSES.values())} Waveform Storage, got {kind[:64]}; it is no ECG"
        )
    return data_set, BYTE_ORDERS[syntax]


def _broken() -> tuple[type[Exception], ...]:
    """What pydicom raises where a file is damaged."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_BROKEN, BytesLengthException, InvalidDicomError)


def _reason(error: Exception) -> str:
    """What is wrong, in words that hold nothing of the file: pydicom's own messages repeat values."""
    own = str(error)
    return own if own.startswith("expected an uncompressed") else type(error).__name__


def _value(path: Path, item: Any, keyword: str, default: Any = None) -> Any:
    """One value of a data set; pydicom decodes it only now, so that this is where a broken one shows."""
    try:
        raw = item.get_item(keyword) if hasattr(item, "get_item") and keyword in item else None
        if getattr(raw, "is_raw", False) and raw.length not in (_UNDEFINED_LENGTH, len(raw.value or b"")):
            raise EOFError("the value is shorter than its length")
        value = item.get(keyword, default)
        return default if value is None or value == "" else value
    except _broken() as error:
        raise ValueError(f"{path}: expected a readable {keyword}, got a broken one ({type(error).__name__})") from error


def _items(path: Path, item: Any, keyword: str) -> list[Any]:
    value = _value(path, item, keyword, [])
    if not all(hasattr(element, "get") for element in value):
        raise ValueError(f"{path}: expected a sequence of items in {keyword}, got something else")
    return list(value)


def _text(path: Path, item: Any, keyword: str) -> str:
    return str(_value(path, item, keyword, "")).strip()


def _number(path: Path, item: Any, keyword: str, default: float | None = None) -> float:
    value = _value(path, item, keyword, default)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{path}: expected a number in {keyword}, got none that is one")
    return number


def _group(path: Path, item: Any, number: int) -> _Group:
    definitions = _items(path, item, "ChannelDefinitionSequence")
    announced, num_samples = (
        int(_number(path, item, keyword)) for keyword in ("NumberOfWaveformChannels", "NumberOfWaveformSamples")
    )
    if announced != len(definitions):
        raise ValueError(f"{path}: announces {announced} channels in group {number}, but defines {len(definitions)}")
    if not 1 <= announced <= MAX_LEADS:
        raise ValueError(f"{path}: expected 1 to {MAX_LEADS} channels in group {number}, got {announced}")
    label = _text(path, item, "MultiplexGroupLabel").upper()
    return _Group(
        label if label in _KNOWN_LABELS else f"group {number}",
        _text(path, item, "WaveformOriginality") == "DERIVED",
        num_samples,
        tuple(_channel(path, definition, index) for index, definition in enumerate(definitions)),
        item,
    )


def _is_rhythm(group: _Group) -> bool:
    return not group.is_derived and bool(group.leads)


def _rank(group: _Group) -> tuple[int, bool, int]:
    return len(group.leads), group.label == "RHYTHM", group.num_samples


def _channel(path: Path, definition: Any, index: int) -> _Channel:
    name = _channel_name(path, definition, index)
    units = _items(path, definition, "ChannelSensitivityUnitsSequence")
    unit = _text(path, units[0], "CodeValue") if units else ""
    if unit and voltage_unit(unit) is None:
        return _Channel(name, None, 0.0)
    sensitivity = _value(path, definition, "ChannelSensitivity")
    if not unit or sensitivity is None:
        raise ValueError(f"{path}: expected the sensitivity and its unit for {name}, got none; units are never guessed")
    step = _number(path, definition, "ChannelSensitivity")
    step *= _number(path, definition, "ChannelSensitivityCorrectionFactor", 1.0)
    if step == 0:
        raise ValueError(f"{path}: expected a sensitivity other than 0 for {name}, got 0; correct the file")
    baseline = _number(path, definition, "ChannelBaseline", 0.0)
    return _Channel(name, 1.0 / (step * millivolt_per_unit(path, unit)), -baseline / step)


def _channel_name(path: Path, definition: Any, index: int) -> str:
    """The lead of the source's code, which must agree with its meaning where both are understood."""
    source = next(iter(_items(path, definition, "ChannelSourceSequence")), {})
    code, meaning = _text(path, source, "CodeValue"), _text(path, source, "CodeMeaning")
    by_code, by_meaning = lead_of_code(code), plain_lead_name(meaning)
    if by_code and by_meaning and by_code != by_meaning:
        raise ValueError(f"{path}: channel {index} is {by_code} by its code, but {by_meaning} by its name; correct it")
    label = _text(path, definition, "ChannelLabel")
    return by_code or by_meaning or plain_lead_name(label) or told_name(meaning or label) or f"channel {index}"


def _sample_type(path: Path, group: _Group, byte_order: str) -> np.dtype:
    interpretation = _text(path, group.item, "WaveformSampleInterpretation")
    bits = int(_number(path, group.item, "WaveformBitsAllocated"))
    sample_type = np.dtype(byte_order + SAMPLE_TYPES.get(interpretation, "V1"))
    if sample_type.kind == "V" or sample_type.itemsize * 8 != bits:
        known = ", ".join(SAMPLE_TYPES)
        raise ValueError(
            f"{path}: expected samples as {known} with their bits, got {interpretation[:4]!r} with {bits} bits; "
            f"convert the file to 16 bits"
        )
    return sample_type


def _samples(path: Path, group: _Group, byte_order: str) -> np.ndarray:
    """The integers of all channels, `(channels, samples)`."""
    sample_type = _sample_type(path, group, byte_order)
    check_size(path, len(group.channels), group.num_samples)
    data = _value(path, group.item, "WaveformData", b"")
    expected = len(group.channels) * group.num_samples * sample_type.itemsize
    held = len(data) if isinstance(data, bytes) else 0
    if held not in (expected, expected + expected % 2):  # DICOM pads to an even number of bytes
        raise ValueError(
            f"{path}: announces {len(group.channels)} channels of {group.num_samples} samples ({expected} bytes), but "
            f"holds {held} bytes; the file is cut short or its length is wrong, copy it again"
        )
    flat = np.frombuffer(data, sample_type, count=expected // sample_type.itemsize)
    return flat.reshape(group.num_samples, -1).T.astype(np.int64)  # (samples, channels) -> (channels, samples)


def _absent(
    path: Path, group: _Group, byte_order: str, samples: np.ndarray
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Where there is no sample, and the repair that tells how many."""
    padding = _value(path, group.item, "WaveformPaddingValue")
    sample_type = _sample_type(path, group, byte_order)
    if isinstance(padding, bytes) and len(padding) >= sample_type.itemsize:
        padding = int(np.frombuffer(padding, sample_type, count=1)[0])
    if not isinstance(padding, int):
        return None, ()
    absent = samples == padding
    limits = np.iinfo(sample_type)
    if padding not in (limits.min, limits.max) or limits.min == 0 == padding:
        absent = np.broadcast_to(absent.all(axis=0), samples.shape)
    count = int(absent.sum())
    return (absent, (f"padding_to_nan: {count} values",)) if count else (None, ())


def _metadata(path: Path, data_set: Any, identify: IdentityRule) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a record may know of the patient, and what was left out of the report."""
    identities = [_text(path, data_set, keyword) for keyword in _IDENTITIES]
    annotations = _items(path, data_set, "WaveformAnnotationSequence")
    lines = [line for item in annotations for line in _text(path, item, "UnformattedTextValue").splitlines()]
    statements, repairs = safe_statements(lines, identities)
    told_age = _text(path, data_set, "PatientAge")
    age = age_of(told_age[:-1], told_age[-1:])
    days = (_text(path, data_set, keyword) for keyword in ("AcquisitionDateTime", "ContentDate", "StudyDate"))
    recorded = next((day for day in map(date_of, days) if day), None)
    if age is None:
        age = age_between(date_of(_text(path, data_set, "PatientBirthDate")), recorded)
    metadata = {
        "age": age,
        "sex": sex_of(_text(path, data_set, "PatientSex")),
        "patient_id": identify(_text(path, data_set, "PatientID")),
        "report": report_of(statements),
    }
    return metadata, repairs
