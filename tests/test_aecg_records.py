"""HL7 aECG files, made here value by value and published ones."""

from pathlib import Path

import numpy as np
import pytest

from datasets_scripts.readers.formats import read_file

pytest.importorskip("defusedxml")
FOLDER = Path(__file__).parents[2] / "shared" / "data" / "formats" / "aecg"
XSI = 'xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
TIME = '<head value="0" unit="s"/><increment value="0.004" unit="s"/>'


def sequence(code, value):
    return (
        f'<component><sequence><code code="{code}"/><value xsi:type="SLIST_PQ">{value}</value></sequence></component>'
    )


def lead(name="I", digits="1 -2 3", scale="2.5", unit="uV", origin="0"):
    value = f'<origin value="{origin}" unit="{unit}"/><scale value="{scale}" unit="{unit}"/><digits>{digits}</digits>'
    return sequence(f"MDC_ECG_LEAD_{name}", value)


def series(*sequences, code="RHYTHM", time=TIME, extra="", tag="series"):
    times = sequence("TIME_ABSOLUTE", time) if time else ""
    sets = f"<component><sequenceSet>{times}{''.join(sequences)}</sequenceSet></component>"
    return f'<{tag}><code code="{code}"/>{sets}{extra}</{tag}>'


def document(*all_series):
    return f"""<AnnotatedECG {XSI}><effectiveTime><low value="20021122091000"/></effectiveTime>
    <componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>
      <id root="1.2" extension="MRN-4711"/><subjectDemographicPerson><name>Anna Sommerfeld</name>
      <administrativeGenderCode code="F"/><birthTime value="19530508"/></subjectDemographicPerson>
    </trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
    {"".join(f"<component>{one}</component>" for one in all_series)}</AnnotatedECG>"""


def statement(code, text):
    return f'<annotation><code code="MDC_ECG_INTERPRETATION_{code}"/><value xsi:type="ST">{text}</value></annotation>'


@pytest.fixture
def read(tmp_path):
    def write_and_read(*all_series, **options):
        path = tmp_path / "subject 1.xml"
        path.write_text(document(*all_series), encoding="utf-8")
        return read_file(path, **options)

    return write_and_read


def test_values_by_hand(read):
    record = read(series(lead("II"), lead("AVR", "10 20 -30", "0.005", "mV", "0.1")))
    assert (record.leads, record.sampling_rate, record.record_id) == (("II", "aVR"), 250.0, "subject 1")
    assert record.digital.tolist() == [[1, -2, 3], [10, 20, -30]]
    np.testing.assert_allclose(record.signal, [[0.0025, -0.005, 0.0075], [0.15, 0.2, -0.05]], rtol=1e-5)
    assert (record.age, record.sex, record.patient_id, record.repairs) == (49.0, "female", None, ())


def test_patient_number_on_request(read):
    assert read(series(lead()), patient_id="keep").patient_id == "MRN-4711"


@pytest.mark.parametrize(
    ("value", "unit", "rate"), [("1", "ms", 1000.0), ("0.0027777777", "s", 360.00001), ("5000", "us", 200)]
)
def test_increments(read, value, unit, rate):
    assert read(series(lead(), time=f'<increment value="{value}" unit="{unit}"/>')).sampling_rate == pytest.approx(rate)


def test_fractions_and_wide_integers_become_float(read):
    assert read(series(lead(digits="1.5 2 -0.25", scale="1", unit="mV"))).signal[0].tolist() == [1.5, 2.0, -0.25]
    record = read(series(lead(digits="-100000 0 100000", scale="10", unit="nV")))
    assert record.digital is None
    np.testing.assert_allclose(record.signal[0], [-1, 0, 1])


def test_other_series_sets_and_channels_are_told(read):
    derived = "<derivation>" + series(lead("I"), code="REPRESENTATIVE_BEAT", tag="derivedSeries") + "</derivation>"
    chosen = series(lead("I"), lead("II"), lead("PLETH", unit="mm[Hg]"), extra=derived)
    record = read(series(lead("I", "1 2 3 4")), chosen, series(lead("I"), lead("II"), lead("V1"), code="OTHER"))
    assert record.leads == ("I", "II")
    assert record.repairs == (
        "left_out_series: OTHER",
        "left_out_series: REPRESENTATIVE_BEAT",
        "left_out_sequence_set: 1 leads",
        "left_out_channel: PLETH",
    )


def test_reports_without_comments_and_people(read):
    texts = statement("STATEMENT", "Sinus rhythm") + statement("STATEMENT", "Read by Dr. Grey")
    texts += statement("STATEMENT", "as told by Sommerfeld") + statement("SUMMARY", "Normal ECG")
    record = read(series(lead(), extra=texts + statement("COMMENT", "Anna feels well")))
    assert (record.report, record.statements) == ("Sinus rhythm. Normal ECG.", ())
    assert record.repairs == (
        "left_out_statement: confirmation",
        "left_out_statement: identity",
        "left_out_statement: comment",
    )
    assert not any(word in repr(vars(record)) for word in ("Sommerfeld", "Anna", "4711", "1953", "Grey"))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (series(lead(), code="OTHER"), "got series: OTHER"),
        (series(), "expected a series RHYTHM"),
        (series(lead(), time=""), "expected a time sequence"),
        (series(lead(), time='<increment value="0" unit="s"/>'), "above 0"),
        (series(lead(), time='<increment value="2" unit="min"/>'), "above 0 in s, ms, us"),
        (series(lead(), time="<head value='0'/>"), "fixed increment"),
        (series(lead(unit="")), "units are never guessed"),
        (series(lead(scale="0")), "other than 0"),
        (series(lead(scale="x")), "expected a number"),
        (series(lead(scale="1e-300")), "mV per integer step"),
        (series(lead(digits="1 b 3")), "expected numbers"),
        (series(lead(digits="1 -- 3")), "expected numbers"),
        (series(lead(digits="1 1e999")), "32 bits"),
        (series(lead(digits="")), "announces 0 samples"),
        (series(lead("I", "1 2"), lead("II", "1 2 3")), "as many samples"),
        (series(lead("I"), lead("I")), "each lead once"),
        (series(*[lead(f"X{n}") for n in range(300)]), "256 leads"),
    ],
)
def test_what_makes_no_sense_is_refused(read, made, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read(made)
    assert "subject 1.xml: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
@pytest.mark.parametrize(
    ("name", "num_leads", "rate", "num_samples", "step"),
    [
        ("Example", 12, 500, 5000, 0.0025),
        ("hl7aecg-Example2", 12, 1000, 10000, 0.0025),
        ("hl7aecg_example", 12, 100, 1000, 0.005),
        ("subject1_0", 12, 500, 5000, 0.0025),
        ("minimum_aecg", 1, 500, 13, 0.0025),
    ],
)
def test_published_files(name, num_leads, rate, num_samples, step):
    record = read_file(FOLDER / f"{name}.xml")
    assert (record.num_leads, record.sampling_rate, record.num_samples) == (num_leads, rate, num_samples)
    np.testing.assert_allclose(1 / record.gain, step, rtol=1e-6)
    assert np.abs(record.signal).max() < 4
    if num_leads == 12:
        signal = dict(zip(record.leads, record.signal, strict=True))
        residual = np.abs(signal["II"] - signal["I"] - signal["III"])
        assert residual.max() <= (step * 1.01 if name != "hl7aecg_example" else 0.17)  # its leads lie 0.15 mV off
        assert "left_out_series: REPRESENTATIVE_BEAT" in record.repairs


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the folder ../shared with published files")
def test_published_files_tell_no_identity():
    record = read_file(FOLDER / "hl7aecg_example.xml")
    assert record.report.startswith("Rythme sinusal avec ESA.") and record.report.endswith("ECG limite.")
    assert "25060897140" not in repr(vars(record)) and record.patient_id is None
    assert read_file(FOLDER / "hl7aecg_example.xml", patient_id="keep").patient_id == "25060897140"
    assert read_file(FOLDER / "minimum_aecg.xml").signal[0, :3].tolist() == pytest.approx([-0.005] * 3)
