"""The table of SNOMED CT codes against what the Challenge and the Chapman-Shaoxing-Ningbo release publish."""

import re
from pathlib import Path

import pytest

from datasets_scripts import snomed

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "physionet2021"

# the Challenge's classes in the order of its weights.csv, each with the codes that it scores alike
CLASSES = """164889003 164890007 6374002 426627000 733534002|164909002 713427006|59118001 270492004 713426002 39732003
445118002 251146004 698252002 426783006 284470004|63593006 10370003 365413008 427172004|17338001 164947007 111975006
164917005 47665007 427393009 426177001 427084000 164934002 59931005""".split()

# acronym and code of the 63 conditions in ConditionNames_SNOMED-CT.csv of the Chapman-Shaoxing-Ningbo release
CSN_CONDITIONS = """1AVB 270492004, 2AVB 195042002, 2AVB1 54016002, 2AVB2 28189009, 3AVB 27885002, ABI 251173003,
ALS 39732003, APB 284470004, AQW 164917005, ARS 47665007, AVB 233917008, CCR 251199005, CR 251198002, ERV 428417006,
FQRS 164942001, IDC 698252002, IVB 698252002, JEB 426995002, JPT 251164006, LBBB 164909002, LBBBB 164909002,
LFBBB 164909002, LVH 164873001, LVQRSAL 251146004, LVQRSCL 251148003, LVQRSLL 251147008, MI 164865005, MIBW 164865005,
MIFW 164865005, MILW 164865005, MISW 164865005, PRIE 164947007, PWC 164912004, QTIE 111975006, RAH 446358003,
RBBB 59118001, RVH 89792004, STDD 429622005, STE 164930006, STTC 428750005, STTU 164931005, TWC 164934002,
TWO 59931005, UW 164937009, VB 11157007, VEB 75532003, VFW 13640000, VPB 17338001, VPE 195060002, VET 251180001,
WAVN 195101003, WPW 74390002, SB 426177001, SR 426783006, AFIB 164889003, ST 427084000, AF 164890007, SA 427393009,
SVT 426761007, AT 713422000, AVNRT 233896004, AVRT 233897008, SAAWR 195101003"""
CSN_PAIRS = [pair.split() for pair in CSN_CONDITIONS.split(",")]


def test_the_challenge_scores_30_codes_as_26_classes_in_its_order():
    codes_of_label = {}
    for code in snomed.snomed_codes().values():
        if code.scored:
            codes_of_label.setdefault(snomed.label_of_code(code), []).append(code.code)
    assert sum(map(len, codes_of_label.values())) == 30
    assert [sorted(codes) for codes in codes_of_label.values()] == [sorted(codes.split("|")) for codes in CLASSES]
    assert snomed.label_names() == list(codes_of_label)
    assert len(snomed.label_names()) == 26


def test_all_133_codes_of_the_challenge_and_four_more_of_csn_are_there():
    codes = snomed.snomed_codes()
    assert len(codes) == 30 + 103 + 4
    for code in ("233892002", "67741000119109", "74390002", "368009", "251233006"):
        assert (code in codes) == (code != "251233006")


@pytest.mark.parametrize(
    "pair, label",
    [
        (("733534002", "164909002"), "LBBB"),
        (("713427006", "59118001"), "RBBB"),
        (("284470004", "63593006"), "PAC"),
        (("427172004", "17338001"), "PVC"),
    ],
)
def test_equivalent_codes_are_one_label_but_keep_their_names(pair, label):
    assert snomed.labels_of_codes(pair) == (label,)
    assert len(snomed.names_of_codes(pair)) == 2
    assert len(snomed.label_prompts()[label]) == 2


def test_names_are_plain_words_that_a_list_can_hold():
    names = [code.name for code in snomed.snomed_codes().values()]
    for name in names:
        assert name == " ".join(name.split()) and "," not in name and not name.endswith(".")
        words = [word for word in re.split(r"[ -]", name) if word not in ("Mobitz", "Brugada", "Wolff", "White", "II")]
        lower_or_abbreviated = [word for word in words if word.islower() or re.fullmatch(r"[A-Z]{1,3}|\(?\w+\)?", word)]
        assert lower_or_abbreviated == words
    twice = {name for name in names if names.count(name) > 1}  # two codes for one condition, one of them CSN's
    assert twice == {"AV nodal reentrant tachycardia", "Mobitz type II second degree AV block"}


def test_every_condition_of_csn_has_a_label_and_several_acronyms_of_one_code_the_first():
    first = {}
    for acronym, code in CSN_PAIRS:
        first.setdefault(code, acronym)
    assert len(CSN_PAIRS) == 63
    for code, acronym in first.items():
        assert snomed.labels_of_codes([code], task="csn") == (acronym,)
    # what its records write instead of the codes on its list
    others = snomed.labels_of_codes(["251166008", "17366009", "426183003"], task="csn")
    assert others == ("AVNRT", "SAAWR", "2AVB2")
    assert set(snomed.label_names("csn")) == {*first.values(), *others}
    assert snomed.label_names("csn") == sorted(snomed.label_names("csn"))


def test_the_38_conditions_of_the_csn_benchmark_are_among_them():
    """Those of MERL (arXiv 2403.06659), by the columns of its public split files."""
    columns = """AQW UW SR WPW 2AVB AT VB ARS STTC SA STE VPB TWO STTU ALS APB 2AVB1 PRIE CCR CR AF AVB QTIE LBBB VEB
    SVT RBBB 1AVB STDD MI AFIB TWC PWC ERV RVH LVH ST JEB""".split()
    assert len(columns) == 38
    assert set(columns) <= set(snomed.label_names("csn"))


def test_codes_that_are_not_known_are_told_and_give_no_name():
    codes = ["426783006", "123", "426783006", "99"]
    assert snomed.unknown_codes(codes) == ("123", "99")
    assert snomed.names_of_codes(codes) == ("sinus rhythm",)
    assert snomed.labels_of_codes(codes) == ("NSR",)
    assert snomed.labels_of_codes(["164865005"]) == ()  # myocardial infarction is not scored


def test_another_task_is_refused():
    for call in (snomed.label_names, snomed.label_prompts, lambda task: snomed.labels_of_codes([], task)):
        with pytest.raises(ValueError, match="task: expected one of challenge, csn, got 'cpsc'"):
            call("cpsc")


def test_prompts_are_whole_texts_in_the_order_of_the_labels():
    for task in snomed.TASKS:
        prompts = snomed.label_prompts(task)
        assert list(prompts) == snomed.label_names(task)
        assert all(re.fullmatch(r"ECG Findings: [^,]+\.", text) for texts in prompts.values() for text in texts)
    assert snomed.label_prompts()["AF"] == ["ECG Findings: atrial fibrillation."]


def test_every_code_of_the_real_records_is_known():
    headers = sorted(SHARED.glob("*/*.hea"))
    if not headers:
        pytest.skip("needs ../shared/data/physionet2021")
    lines = [line for path in headers for line in path.read_text().splitlines() if re.match(r"#\s*Dx", line)]
    codes = {code.strip() for line in lines for code in line.partition(":")[2].split(",")}
    assert len(lines) == 54 and len(codes) == 35
    assert snomed.unknown_codes(codes) == ()
