"""GE MUSE exports, made here in the layout that MUSE writes."""

import base64
import zlib

import numpy as np
import pytest

from datasets_scripts.readers.formats import read_file

pytest.importorskip("defusedxml")
HEAD = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DIAGNOSIS = (
    ("", "Possible"),
    ("ENDSLINE", "left atrial enlargement"),
    ("ENDSLINE", "Inferior infarct (cited on or before 14-FEB-2011)"),
    ("ENDSLINE", "Confirmed by GREY, M.D., MEREDITH (1008) on 2/9/2015 11:10:33 AM"),
    ("ENDSLINE", "Discussed with Sommerfeld"),
)


def lead(name, samples, **changes):
    data = np.array(samples, "<i2").tobytes()
    fields = {
        "LeadByteCountTotal": len(data),
        "LeadTimeOffset": 0,
        "LeadSampleCountTotal": len(data) // 2,
        "LeadAmplitudeUnitsPerBit": 4.88,
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadID": name,
        "LeadOffsetFirstSample": 0,
        "FirstSampleBaseline": 0,
        "LeadSampleSize": 2,
        "LeadOff": "FALSE",
        "LeadDataCRC32": zlib.crc32(data),
        "WaveFormData": "\n" + base64.b64encode(data).decode() + "\n",
    } | changes
    return "<LeadData>" + "".join(f"<{key}>{value}</{key}>" for key, value in fields.items()) + "</LeadData>"


def waveform(*leads, kind="Rhythm", base="250", exponent="0"):
    rate = f"<SampleBase>{base}</SampleBase><SampleExponent>{exponent}</SampleExponent>"
    return f"<Waveform><WaveformType>{kind}</WaveformType>{rate}{''.join(leads)}</Waveform>"


def statements(section, lines):
    flags = [f"<StmtFlag>{flag}</StmtFlag>" if flag else "" for flag, _ in lines]
    texts = [f"<StmtText>{text}</StmtText>" for _, text in lines]
    made = (f"<DiagnosisStatement>{flag}{text}</DiagnosisStatement>" for flag, text in zip(flags, texts, strict=True))
    return f"<{section}><Modality>RESTING</Modality>{''.join(made)}</{section}>"


def document(*parts, patient="<PatientAge>63</PatientAge><AgeUnits>YEARS</AgeUnits>"):
    return f"""{HEAD}<RestingECG><PatientDemographics><PatientID>4711-815</PatientID>{patient}
    <DateofBirth>05-08-1943</DateofBirth><Gender>FEMALE</Gender><PatientLastName>Sommerfeld</PatientLastName>
    <PatientFirstName>Ännchen</PatientFirstName></PatientDemographics>
    <TestDemographics><AcquisitionDate>05-07-2013</AcquisitionDate><OverreaderLastName>Grey</OverreaderLastName>
    </TestDemographics>{"".join(parts)}</RestingECG>"""


@pytest.fixture
def read(tmp_path):
    def write_and_read(*parts, patient=None, **options):
        path = tmp_path / "export.xml"
        text = document(*parts) if patient is None else document(*parts, patient=patient)
        path.write_bytes(text.encode("latin-1"))
        return read_file(path, **options)

    return write_and_read


def test_values_by_hand(read):
    leads = [lead(name, [100 * number, -50, 0]) for number, name in enumerate(EIGHT)]
    record = read(waveform(*leads[:2], kind="Median"), waveform(*leads, base="5", exponent="2"))
    assert (record.leads, record.sampling_rate, record.record_id) == (EIGHT, 500.0, "export")
    assert record.digital[3].tolist() == [300, -50, 0]
    np.testing.assert_allclose(record.signal[1], [0.488, -0.244, 0.0], rtol=1e-6)
    assert (record.age, record.sex, record.patient_id) == (63.0, "female", None)
    assert record.repairs == ("left_out_waveform: median",)


def test_names_may_be_written_in_any_case_and_namespace(tmp_path):
    path = tmp_path / "export.xml"
    text = document(waveform(lead("I", [7, 8]))).replace("<RestingECG>", '<m:RestingECG xmlns:m="urn:x" xmlns="urn:y">')
    text = text.replace("</RestingECG>", "</m:RestingECG>").replace("WaveFormData", "waveformdata")
    path.write_bytes(text.encode("latin-1"))
    assert read_file(path).digital.tolist() == [[7, 8]]


def test_the_longest_rhythm_with_most_leads_is_taken(read):
    record = read(
        waveform(lead("II", range(9))),
        waveform(lead("I", [1, 2]), lead("II", [1, 2])),
        waveform(lead("I", [1, 2, 3]), lead("II", [1, 2, 3])),
    )
    assert record.digital.tolist() == [[1, 2, 3]] * 2
    assert record.repairs == ("left_out_waveform: rhythm",) * 2


def test_statements_are_lines_without_people_and_dates(read):
    original = statements("OriginalDiagnosis", [("ENDSLINE", "Sinus rhythm")])
    record = read(statements("Diagnosis", DIAGNOSIS), original, waveform(lead("I", [1, 2])))
    assert record.statements == ("Possible left atrial enlargement", "Inferior infarct (cited on or before [date])")
    assert record.report == "Possible left atrial enlargement. Inferior infarct (cited on or before [date])."
    assert record.repairs == (
        "masked_in_statement: date",
        "left_out_statement: confirmation",
        "left_out_statement: identity",
    )
    told = repr(vars(record))
    assert not any(word in told for word in ("Sommerfeld", "nnchen", "4711", "1943", "Grey", "GREY", "2015", "2011"))


def test_the_original_diagnosis_stands_in(read):
    original = statements("OriginalDiagnosis", [("", "Sinus rhythm"), ("", "Normal ECG")])
    assert read(original, waveform(lead("I", [1]))).statements == ("Sinus rhythm", "Normal ECG")


@pytest.mark.parametrize(
    ("patient", "age"),
    [("", 69), ("<PatientAge>95</PatientAge>", 90), ("<PatientAge>18</PatientAge><AgeUnits>MONTHS</AgeUnits>", 1)],
)
def test_age(read, patient, age):
    assert read(waveform(lead("I", [1])), patient=patient).age == age


def test_patient_number_on_request(read):
    assert read(waveform(lead("I", [1])), patient_id="keep").patient_id == "4711-815"
    first, second = (read(waveform(lead("I", [1])), patient_id="hash", salt=salt).patient_id for salt in ("a", "b"))
    assert first != second and len(first) == 16


def test_what_is_odd_but_readable_is_told(read):
    odd = [lead("I", [1, 2], LeadDataCRC32=77), lead("II", [1, 2], LeadOff="TRUE"), lead("V1", [1, 2], LeadDataCRC32=0)]
    assert read(waveform(*odd)).repairs == ("checksum_differs: I", "lead_off: II")


def test_the_lowest_integer_is_a_value(read):
    record = read(waveform(lead("I", [-32768, 32767])))
    np.testing.assert_allclose(record.signal[0], [-159.90784, 159.90296], rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (waveform(lead("I", [1]), kind="Median"), "got waveforms: median"),
        ("", "got waveforms: none"),
        (waveform(), "announces 1 samples of 0 leads"),
        (waveform(lead("I", [1, 2], LeadByteCountTotal=6)), "announces LeadByteCountTotal '6', but holds 4"),
        (waveform(lead("I", [1, 2], LeadSampleCountTotal=10**12)), "but holds 2"),
        (waveform(lead("I", [])), "got 0 bytes"),
        (waveform(lead("I", [1], WaveFormData="AAAA")), "got 3 bytes"),
        (waveform(lead("I", [1], WaveFormData="a!b?")), "expected base64"),
        (waveform(lead("I", [1], LeadSampleSize=4)), "samples of 2 bytes"),
        (waveform(lead("I", [1], LeadAmplitudeUnits="")), "units are never guessed"),
        (waveform(lead("I", [1], LeadAmplitudeUnitsPerBit="0")), "other than 0"),
        (waveform(lead("I", [1], LeadAmplitudeUnitsPerBit="")), "expected a number"),
        (waveform(lead("I", [1]), lead("II", [1, 2])), "as many samples"),
        (waveform(lead("I", [1]), lead("II", [1], LeadTimeOffset=2500)), "begin together"),
        (waveform(lead("I", [1]), lead("I", [1])), "each lead once"),
        (waveform(lead("", [1])), "with its name"),
        (waveform(lead("I", [1]), base="0"), "sampling rate"),
        (waveform(lead("I", [1]), exponent="99999999"), "SampleExponent"),
    ],
)
def test_what_makes_no_sense_is_refused(read, made, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read(made)
    assert "export.xml: " in str(caught.value) and "\n" not in str(caught.value)
