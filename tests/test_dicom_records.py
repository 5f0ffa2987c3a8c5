"""DICOM ECGs, made here value by value and published ones."""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.readers.formats import read_file

pydicom = pytest.importorskip("pydicom")
FOLDER = Path(__file__).parents[2] / "shared" / "data" / "formats"
TWELVE_LEAD, HEMODYNAMIC = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.9.2.1"
EXPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
CODES = {"I": "5.6.3-9-1", "II": "5.6.3-9-2", "V1": "2:3"}
NAME = "Sommerfeld^Anna"


def code_item(value, meaning="", scheme="SCPECG"):
    item = pydicom.Dataset()
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = value, meaning, scheme
    return item


def channel(lead="I", sensitivity="2.5", unit="uV", correction=None, baseline=None, code=None, meaning=None):
    item = pydicom.Dataset()
    item.ChannelSourceSequence = [code_item(CODES.get(lead, "") if code is None else code, meaning or f"Lead {lead}")]
    if sensitivity is not None:
        item.ChannelSensitivity = sensitivity
        item.ChannelSensitivityUnitsSequence = [code_item(unit, scheme="UCUM")]
    if correction is not None:
        item.ChannelSensitivityCorrectionFactor = correction
    if baseline is not None:
        item.ChannelBaseline = baseline
    return item


def group(samples, channels, kind="<i2", interpretation="SS", rate="250", label="RHYTHM", originality="ORIGINAL"):
    """A multiplex group of integers `(num_channels, num_samples)`."""
    item = pydicom.Dataset()
    samples = np.array(samples)
    item.WaveformOriginality, item.MultiplexGroupLabel = originality, label
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = samples.shape
    item.SamplingFrequency = rate
    item.ChannelDefinitionSequence = channels
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = np.dtype(kind).itemsize * 8, interpretation
    data = samples.T.astype(kind).tobytes()
    item.add_new("WaveformData", "OB" if "1" in kind else "OW", data + b"\0" * (len(data) % 2))
    return item


def data_set(groups, sop_class=TWELVE_LEAD):
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID, made.PatientName, made.PatientID = sop_class, "1.2.3", NAME, "MRN-4711"
    made.OperatorsName, made.ReferringPhysicianName, made.PatientBirthDate = "Nurse^Nora", "Grey^Meredith", "19530508"
    made.PatientAge, made.PatientSex, made.StudyDate = "056Y", "F", "20021122"
    made.WaveformSequence = groups
    return made


def save(path, made, syntax=EXPLICIT):
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, "1.2.3"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ecg.dcm"


SAMPLES = [[400, -800, 3], [0, 4, 8]]


def test_values_by_hand(path):
    channels = [channel("I"), channel("II", "0.005", "mV", correction="2", baseline="0.5")]
    record = read_file(save(path, data_set([group(SAMPLES, channels)])))
    assert (record.leads, record.sampling_rate, record.record_id) == (("I", "II"), 250.0, "ecg")
    assert record.digital.tolist() == SAMPLES
    np.testing.assert_allclose(record.signal, [[1.0, -2.0, 0.0075], [0.5, 0.54, 0.58]], rtol=1e-6)
    assert (record.age, record.sex, record.patient_id) == (56.0, "female", None)


@pytest.mark.parametrize(
    ("kind", "interpretation"), [("i1", "SB"), ("u1", "UB"), ("<i2", "SS"), ("<u2", "US"), ("<i4", "SL"), ("<u4", "UL")]
)
def test_every_kind_of_sample(path, kind, interpretation):
    samples = [[1, 100, 7], [0, 50, 9]]
    record = read_file(save(path, data_set([group(samples, [channel("I"), channel("II")], kind, interpretation)])))
    np.testing.assert_allclose(record.signal, np.array(samples) * 2.5e-3, rtol=1e-6)


def test_big_endian(path):
    made = data_set([group(SAMPLES, [channel("I"), channel("II")], ">i2")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = read_file(save(path, made, BIG_ENDIAN))
    assert record.digital.tolist() == SAMPLES


def test_the_group_with_most_leads_is_taken_and_the_others_told(path):
    both = [channel("I"), channel("II")]
    groups = [
        group([[1] * 9], [channel("I")]),
        group(SAMPLES, both, label="Anna"),
        group([[5] * 40] * 2, both, label="MEDIAN BEAT", originality="DERIVED"),
        group([[1] * 2] * 2, both),
    ]
    record = read_file(save(path, data_set(groups)))
    assert record.num_samples == 2  # labelled RHYTHM, against a longer group without a label that is known
    assert record.repairs == (
        "left_out_group: RHYTHM (1 channels, 9 samples)",
        "left_out_group: group 1 (2 channels, 3 samples)",
        "left_out_group: MEDIAN BEAT (2 channels, 40 samples)",
    )


def test_channels_that_are_no_voltage_are_left_out(path):
    channels = [channel("I"), channel("", "1", "mm[Hg]", meaning="Arterial pressure")]
    record = read_file(save(path, data_set([group(SAMPLES, channels)])))
    assert (record.leads, record.repairs) == (("I",), ("left_out_channel: Arterial pressure",))


@pytest.mark.parametrize(("padding", "missing"), [(-32768, 3), (0, 2)])
def test_padding(path, padding, missing):
    """The lowest integer is padding wherever it stands; zero only where all leads hold it."""
    made = group([[5, padding, padding, 7], [5, 6, padding, 8]], [channel("I"), channel("II")])
    made.add_new("WaveformPaddingValue", "OW", np.array([padding], "<i2").tobytes())
    record = read_file(save(path, data_set([made])))
    assert np.isnan(record.signal).sum() == missing
    assert record.repairs == (f"padding_to_nan: {missing} values",)


def test_reports_without_people(path):
    made = data_set([group(SAMPLES, [channel("I"), channel("II")])])
    made.WaveformAnnotationSequence = [pydicom.Dataset() for _ in range(4)]
    lines = ("Sinus rhythm", "Normal ECG", "Confirmed by GREY", "Anna Sommerfeld, routine")
    for item, line in zip(made.WaveformAnnotationSequence, lines, strict=True):
        item.UnformattedTextValue = line
    record = read_file(save(path, made))
    assert (record.report, record.statements) == ("Sinus rhythm. Normal ECG.", ())
    assert record.repairs == ("left_out_statement: confirmation", "left_out_statement: identity")


def test_patient_number_on_request_only(path):
    save(path, data_set([group(SAMPLES, [channel("I"), channel("II")])]))
    assert read_file(path).patient_id is None
    assert read_file(path, patient_id="keep").patient_id == "MRN-4711"
    assert len(read_file(path, patient_id="hash", salt="s").patient_id) == 16


def test_age_from_dates_where_it_is_not_told(path):
    made = data_set([group(SAMPLES, [channel("I"), channel("II")])])
    del made.PatientAge
    assert read_file(save(path, made)).age == 49.0


def test_no_identity_in_record_message_warning_or_log(path, caplog):
    caplog.set_level(logging.DEBUG)
    made = data_set([group(SAMPLES, [channel("I"), channel("II")])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.PatientAge, made.PatientSex = "Sommerfeld-far-too-long", "Sommerfeld"
        save(path, made)
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = read_file(path)
    told = repr(vars(record)) + caplog.text
    for identity in ("Sommerfeld", "Anna", "4711", "1953", "Nora", "Grey", "Meredith", "2002"):
        assert identity not in told.replace(str(path), "")


def broken(**changes):
    made = group(SAMPLES, [channel("I"), channel("II")])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (broken(NumberOfWaveformSamples=10**9), "announces"),
        (broken(NumberOfWaveformSamples=4), "holds 12 bytes"),
        (broken(NumberOfWaveformSamples=2), "holds 12 bytes"),
        (broken(NumberOfWaveformSamples=0), "announces 0 samples"),
        (broken(NumberOfWaveformChannels=3), "defines 2"),
        (broken(WaveformBitsAllocated=8), "expected samples as"),
        (broken(WaveformSampleInterpretation="MB"), "expected samples as"),
        (broken(SamplingFrequency="0"), "sampling rate"),
        (broken(WaveformOriginality="DERIVED"), "original ECG channels"),
        (group(SAMPLES, [channel("I", None), channel("II")]), "units are never guessed"),
        (group(SAMPLES, [channel("I", "0"), channel("II")]), "sensitivity other than 0"),
        (group(SAMPLES, [channel("I"), channel("I")]), "each lead once"),
        (group(SAMPLES, [channel("I"), channel("II", meaning="Lead V1")]), "is II by its code, but V1"),
    ],
)
def test_what_makes_no_sense_is_refused(path, made, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read_file(save(path, data_set([made])))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_waveforms_and_syntaxes_are_refused(path):
    made = data_set([group(SAMPLES, [channel("I"), channel("II")])], HEMODYNAMIC)
    with pytest.raises(ValueError, match="Hemodynamic Waveform Storage"):
        read_file(save(path, made))
    with pytest.raises(ValueError, match="uncompressed"):
        read_file(save(path, data_set([group(SAMPLES, [channel("I"), channel("II")])]), DEFLATED))
    path.write_bytes(b"no DICOM")
    with pytest.raises(ValueError, match="'DICM' at byte 128"):
        read_file(path)


def test_every_truncation_is_refused_with_a_sentence(path):
    data = save(path, data_set([group(SAMPLES, [channel("I"), channel("II")])])).read_bytes()
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"ecg\.dcm: "):
            read_file(path)


def test_a_flood_of_items_is_refused(path):
    data = save(path, data_set([group(SAMPLES, [channel("I"), channel("II")])])).read_bytes()
    path.write_bytes(data + b"\xfe\xff\x00\xe0\0\0\0\0" * 60_000)
    with pytest.raises(ValueError, match="items of sequences"):
        read_file(path)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
@pytest.mark.parametrize(
    ("name", "rate", "age", "sex"), [("Example", 500, 49, "male"), ("anonymous_ecg", 1000, 42, "female")]
)
def test_published_files(name, rate, age, sex):
    record = read_file(FOLDER / "dicom" / f"{name}.dcm")
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{n}" for n in range(1, 7)))
    assert (record.sampling_rate, record.duration, record.age, record.sex) == (rate, 10.0, age, sex)
    one, two, three, avr, avl, avf = record.signal[:6]
    step = 1 / record.gain[0]
    assert np.abs(two - one - three).max() <= step  # Einthoven
    assert np.abs(avr + avl + avf).max() <= 2 * step  # Goldberger
    assert 1 < np.abs(record.signal).max() < 3
    assert any("MEDIAN BEAT" in repair for repair in record.repairs)
    assert record.report == ("RITMO SINUSALE. ECG NORMALE." if name == "anonymous_ecg" else "")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
def test_a_published_file_of_a_catheter_laboratory_is_refused():
    with pytest.raises(ValueError, match="Hemodynamic Waveform Storage"):
        read_file(FOLDER / "dicom" / "test_ecg.dcm")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
def test_one_recording_in_two_formats_is_one_signal():
    dicom, aecg = read_file(FOLDER / "dicom" / "Example.dcm"), read_file(FOLDER / "aecg" / "Example.xml")
    for lead in dicom.leads:
        np.testing.assert_array_equal(
            dicom.digital[dicom.leads.index(lead)], aecg.digital[aecg.leads.index(lead)], err_msg=lead
        )


def test_a_broken_length_reserves_no_memory(path):
    """The length of the samples says 4 GB: reading stops at the end of the file."""
    data = save(path, data_set([group(SAMPLES, [channel("I"), channel("II")])])).read_bytes()
    position = data.index(b"\x00\x54\x10\x10OW\0\0") + 8
    stream = io.BytesIO(data)
    stream.seek(position)
    stream.write(b"\xfe\xff\xff\xff")
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=r"ecg\.dcm: "):
        read_file(path)
