"""EDF and EDF+ files, made by pyEDFlib and by hand."""

import datetime
import warnings

import numpy as np
import pytest

from datasets_scripts.readers.formats import read_file

pyedflib = pytest.importorskip("pyedflib")
LEADS = (("ECG I", "uV", 50), ("ECG aVR", "mV", 50), ("SpO2", "%", 10), ("EEG Fpz-Cz", "uV", 50))


def field(text, width):
    return str(text).ljust(width)[:width].encode("ascii")


def edf(signals, num_records=2, duration="1", reserved="", patient="4711 Sommerfeld", **changes):
    """The bytes of an EDF file; `signals` are dicts with `samples (num_records, samples_per_record)`."""
    size = 256 * (1 + len(signals))
    main = [("0", 8), (patient, 80), ("Startdate X", 80), ("02.03.02", 8), ("10.00.00", 8)]
    main += [(changes.get("header_bytes", size), 8), (reserved, 44), (changes.get("announced", num_records), 8)]
    main += [(duration, 8), (changes.get("num_signals", len(signals)), 4)]
    defaults = {"label": "ECG I", "transducer": "", "unit": "uV", "low": -5000, "high": 5000}
    defaults |= {"bottom": -2500, "top": 2500, "prefilter": "", "count": None, "reserved": ""}
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    for signal in signals:
        signal.setdefault("count", np.shape(signal["samples"])[-1])
    columns = [
        field((defaults | signal)[name], width)
        for name, width in zip(defaults, widths, strict=True)
        for signal in signals
    ]
    records = [np.array(signal["samples"])[record] for record in range(num_records) for signal in signals]
    return b"".join([*(field(*pair) for pair in main), *columns, *(row.astype("<i2").tobytes() for row in records)])


def signal(samples=((1, 2, 3), (4, 5, 6)), **fields):
    return {"samples": samples, **fields}


@pytest.fixture
def read(tmp_path):
    def write_and_read(data, **options):
        path = tmp_path / "holter.edf"
        path.write_bytes(data)
        return read_file(path, **options)

    return write_and_read


def test_values_by_hand(read):
    """-2500..2500 uV... here: physical -5000..5000, digital -2500..2500: 2 uV a step."""
    shifted = signal(label="V1", unit="mV", low=-1, high=4, bottom=0, top=1000)  # 0.005 mV a step, 0 is -1 mV
    record = read(edf([signal(), shifted]))
    assert (record.leads, record.sampling_rate, record.record_id) == (("I", "V1"), 3.0, "holter")
    assert record.digital.tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    np.testing.assert_allclose(record.signal[0], np.arange(1, 7) * 0.002, rtol=1e-5)
    np.testing.assert_allclose(record.signal[1], -1 + 0.005 * np.arange(1, 7), rtol=1e-5)
    assert (record.age, record.sex, record.patient_id) == (None, None, None)


def test_an_amplifier_may_turn_the_sign(read):
    record = read(edf([signal(low=5000, high=-5000)]))
    np.testing.assert_allclose(record.signal[0], -np.arange(1, 7) * 0.002, rtol=1e-5)


def write_plus(path, kind=pyedflib.FILETYPE_EDFPLUS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = pyedflib.EdfWriter(str(path), len(LEADS), file_type=kind)
        for index, (label, unit, rate) in enumerate(LEADS):
            limits = {"physical_max": 5, "physical_min": -5, "digital_max": 2000, "digital_min": -2000}
            header = {"label": label, "dimension": unit, "sample_frequency": rate, "transducer": "", "prefilter": ""}
            writer.setSignalHeader(index, header | limits)
        writer.setPatientName("Anna Sommerfeld")
        writer.setPatientCode("MRN4711")
        writer.setSex(0)
        writer.setBirthdate(datetime.date(1943, 5, 8))
        writer.setStartdatetime(datetime.datetime(2013, 5, 7, 10, 0, 0))
        writer.setTechnician("Nora")
        wave = np.sin(np.arange(50.0))
        for _ in range(4):
            for _, _, rate in LEADS:
                writer.writePhysicalSamples(wave[:rate].copy())
        writer.writeAnnotation(0.5, -1, "Sommerfeld feels well")
        writer.close()
    return path, wave


def test_edf_plus(tmp_path):
    path, wave = write_plus(tmp_path / "holter.edf")
    record = read_file(path)
    assert (record.leads, record.sampling_rate, record.num_samples) == (("I", "aVR"), 50.0, 200)
    np.testing.assert_allclose(record.signal[1], np.tile(wave, 4), atol=0.0026)
    np.testing.assert_allclose(record.signal[0], np.tile(wave, 4) * 1e-3, atol=0.0026e-3)
    assert (record.age, record.sex, record.patient_id) == (69.0, "female", None)
    assert record.repairs == tuple(f"left_out_channel: {name}" for name in ("SpO2", "EEG Fpz-Cz", "EDF Annotations"))
    assert not any(word in repr(vars(record)) for word in ("Sommerfeld", "Anna", "4711", "1943", "Nora"))
    assert read_file(path, patient_id="keep").patient_id == "MRN4711"


def test_plain_edf_has_no_patient_number(read):
    assert read(edf([signal()]), patient_id="keep").patient_id is None


def test_trailing_bytes_are_told(read):
    record = read(edf([signal()]) + b"\0" * 5)
    assert (record.num_samples, record.repairs) == (6, ("ignored_trailing_bytes: 5",))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (edf([signal()])[:-1], "cut short"),
        (edf([signal()], announced=10**7), "cut short|number of data records"),
        (edf([signal(count=99999999)]), "samples per data record"),
        (edf([signal()], announced=-1), "number of data records"),
        (edf([signal()], num_signals=9999), "number of signals"),
        (edf([signal()], num_signals=2), "header|number"),
        (edf([signal()], header_bytes=768), "header bytes"),
        (edf([signal()], duration="0"), "longer than 0 s"),
        (edf([signal()], duration="nan"), "expected a number"),
        (edf([signal()], duration="1e-30"), "expected a number|sampling rate"),
        (edf([signal()], reserved="EDF+D"), "gaps"),
        (edf([signal(bottom=5, top=5)]), "digital and a physical range"),
        (edf([signal(bottom=-99999)]), "digital_min"),
        (edf([signal(low=1, high=1)]), "physical range"),
        (edf([signal(low="x")]), "expected a number"),
        (edf([signal(label="Pleth"), signal(unit="mmHg")]), "got channels: Pleth, ECG I"),
        (edf([signal(), signal(((1, 2), (3, 4)), label="II")]), "one sampling rate"),
        (edf([signal(), signal()]), "each lead once"),
        (b"0       " + b"\xff" * 248, "printable ASCII|none of them|cannot"),
        (edf([signal()])[:300], "printable ASCII, got another or a shorter"),
    ],
)
def test_what_makes_no_sense_is_refused(read, data, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read(data)
    told = str(caught.value)
    assert "holter.edf: " in told and "\n" not in told and "Sommerfeld" not in told


def test_bdf_is_refused(tmp_path):
    path = tmp_path / "x.bdf"
    path.write_bytes(b"\xffBIOSEMI" + b" " * 300)
    with pytest.raises(ValueError, match="BDF with 24 bits"):
        read_file(path)
