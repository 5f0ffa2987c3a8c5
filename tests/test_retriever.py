"""The retriever: what is asked for comes first, rankings are fused, an index comes back as it was or not at all."""

import numpy as np
import pytest

from datasets_scripts.cqa.corpus import Passage, knowledge_passages
from datasets_scripts.cqa.findings import all_findings
from datasets_scripts.cqa.knowledge import load_knowledge
from datasets_scripts.cqa.retriever import Retriever, read_query, reciprocal_rank_fusion

pytest.importorskip("bm25s", reason="needs esi-ecg[cqa]")

# question -> the page of the shipped base that answers it
QUESTIONS = {
    "How is Wenckebach seen on the ECG?": "mobitz type i second degree av block",
    "LBBB": "left bundle branch block",
    "What are the criteria of RBBB?": "right bundle branch block",
    "1st deg AV block": "first degree av block",
    "What does a STEMI look like?": "st elevation myocardial infarction",
    "Which voltages mean LVH?": "left ventricular hypertrophy",
    "How do I recognise a PVC?": "ventricular premature complex",
    "PACs": "atrial premature complex",
    "Are there P waves in AFib?": "atrial fibrillation",
    "sawtooth baseline": "atrial flutter",
    "LAD on the frontal plane, in degrees": "left axis deviation",
    "Short PR and delta wave in WPW": "wolff-parkinson-white pattern",
    "Complete heart block: are atria and ventricles independent?": "third degree av block",
    "IRBBB": "incomplete right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "What is the differential of torsades?": "torsades de pointes",
    "How urgent is VF?": "ventricular fibrillation",
    "Is V-tach wide?": "ventricular tachycardia",
    "AVNRT pseudo r' in V1": "av nodal reentrant tachycardia",
    "At which rate do we speak of sinus brady?": "sinus bradycardia",
    "peaked narrow T waves with high potassium": "hyperkalemia",
    "hypokalaemia and U waves": "hypokalemia",
    "S1Q3T3": "s1q3t3 pattern",
    "acute PE on the ECG": "pulmonary embolism",
    "coved ST elevation in V1-V2 with a negative T wave": "brugada pattern",
    "How long is a long QTc?": "long qt interval",
    "Osborn wave": "j wave",
    "Which leads show an old inferior MI?": "inferior myocardial infarction",
    "true posterior infarct, tall R in V1-V2": "posterior myocardial infarction",
    "diffuse ST elevation with PR depression": "pericarditis",
    "QRS that changes its size from beat to beat": "electrical alternans",
    "swapped arm electrodes, yet the precordial R waves shrink too": "dextrocardia",
    "NSTEMI": "non-st elevation myocardial infarction",
    "P mitrale, LAE": "left atrial enlargement",
    "three different P wave shapes at more than 100 bpm": "multifocal atrial tachycardia",
    "a pacing spike before each broad QRS": "ventricular pacing",
    "Mobitz II: constant PR before the dropped beat": "mobitz type ii second degree av block",
    "2:1 AV conduction": "two-to-one av block",
    "PRWP": "poor r wave progression",
    "scooped ST depression from digoxin": "digitalis effect",
    "AIVR": "accelerated idioventricular rhythm",
    "RVH voltage in V1": "right ventricular hypertrophy",
    "low voltage in the limb leads": "low qrs voltage",
    "what is a normal 12-lead ECG": "normal ecg",
}


# pictures rather than names: harder, and of some the expected page is one of several good ones
DESCRIPTIONS = {
    "What is the PR interval in LGL?": "lown-ganong-levine pattern",
    "f waves, chaotic baseline, irregularly irregular": "atrial fibrillation",
    "retrograde P wave after QRS, narrow tachycardia": "av nodal reentrant tachycardia",
    "Is trifascicular block urgent?": "trifascicular block",
    "hemiblock left posterior criteria": "left posterior fascicular block",
    "Which sign has a shortened QT and high calcium?": "hypercalcemia",
    "J point elevation with a notch, benign repolarisation": "early repolarization",
    "RV infarct, V4R": "right ventricular myocardial infarction",
    "QS in V1 V2, septal infarct": "septal myocardial infarction",
    "saw tooth flutter waves at 300 bpm": "atrial flutter",
    "group beating with progressive PR lengthening": "mobitz type i second degree av block",
    "AV dissociation, capture and fusion beats, wide tachycardia": "ventricular tachycardia",
    "persistent ST elevation with Q waves weeks after infarct": "ventricular aneurysm",
    "broad notched R in V6 without q": "left bundle branch block",
    "rSR' in V1 with wide S in I and V6": "right bundle branch block",
    "What mimics pericarditis?": "pericarditis",
    "tall peaked P in II, RAE": "right atrial enlargement",
    "every second beat is a PVC": "ventricular bigeminy",
    "flat line, no electrical activity": "asystole",
    "How fast is rapid ventricular response?": "rapid ventricular response",
    "spike without QRS behind it": "failure to capture",
    "pacemaker spikes despite own beats": "failure to sense",
    "low temperature, Osborn waves": "hypothermia",
    "ST depression and T inversion in V5 V6 with LVH": "left ventricular strain",
    "axis between -30 and -90": "left axis deviation",
    "northwest axis": "extreme axis deviation",
    "What is a U wave and when is it abnormal?": "abnormal u wave",
    "P waves of negative polarity in lead II": "inverted p wave",
    "fQRS": "fragmented qrs",
    "tachy-brady syndrome": "bradycardia-tachycardia syndrome",
}


@pytest.fixture(scope="module")
def shipped() -> Retriever:
    return Retriever.build(knowledge_passages())


def recalls(retriever: Retriever, questions: dict[str, str]) -> tuple[float, float]:
    """The share of questions whose page is the first hit, and among the first five."""
    found = [[hit.passage.finding for hit in retriever.search(question)] for question in questions]
    expected = list(questions.values())
    first = [names[:1] == [name] for names, name in zip(found, expected, strict=True)]
    five = [name in names for names, name in zip(found, expected, strict=True)]
    return sum(first) / len(first), sum(five) / len(five)


def test_questions_and_abbreviations_find_their_page(shipped):
    first, five = recalls(shipped, QUESTIONS)
    assert len(QUESTIONS) >= 40 and first >= 0.9 and five >= 0.97


def test_descriptions_find_their_page(shipped):
    first, five = recalls(shipped, DESCRIPTIONS)
    assert first >= 0.75 and five >= 0.9


def test_every_name_synonym_and_code_finds_its_page(shipped):
    pages = load_knowledge()
    names = {
        text: finding.name
        for finding in all_findings().values()
        if finding.name in pages
        for text in (*finding.synonyms, *finding.scp, finding.name)
    }
    missed = [text for text, name in names.items() if shipped.search(text, k=1)[0].passage.finding != name]
    assert len(names) > 1500 and missed == []


# ----- search --------------------------------------------------------------------------------------------------------

BOOK = [
    Passage("Broad notched R waves in V6 mean left bundle branch block.", "Book", page=1),
    Passage("In LBBB the QRS lasts 120 ms or more.", "Book", page=2),
    Passage("Occlusion of the LAD elevates the ST segment in V2.", "Book", page=3),
    Passage("The LAD of -60 degrees speaks for a fascicular block.", "Book", page=4),
    Passage("Nothing here is about hearts.", "Book", page=5),
]


def pages(hits):
    return [hit.passage.page for hit in hits]


def test_books_and_questions_may_write_it_short_or_long():
    book = Retriever.build(BOOK)
    for query in ("LBBB", "left bundle branch block", "What does a left bundle-branch block look like?", "CLBBB"):
        assert set(pages(book.search(query, k=2))) == {1, 2}, query
    assert pages(book.search("LAD stenosis"))[0] == 3
    assert pages(book.search("LAD deviation of the axis"))[0] == 4


def test_hits_are_those_with_a_term_of_the_query_best_first():
    hits = Retriever.build(BOOK).search("QRS in LBBB", k=9)
    assert pages(hits)[0] == 2 and 5 not in pages(hits)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0


@pytest.mark.parametrize("query", ["", "?!", "the of and", "xylophone"])
def test_a_query_without_a_known_term_finds_nothing(query):
    assert Retriever.build(BOOK).search(query) == []


def test_each_finding_that_is_asked_for_has_its_share(shipped):
    found = {hit.passage.finding for hit in shipped.search("RBBB and LAFB", k=4)}
    assert found == {"right bundle branch block", "left anterior fascicular block"}


def test_weight_is_the_inverse_document_frequency():
    book = Retriever.build(BOOK)
    assert book.weight("lad") == pytest.approx(np.log(1 + (5 - 2 + 0.5) / (2 + 0.5)))
    assert book.weight("unheard") == pytest.approx(np.log(1 + 5.5 / 0.5))
    assert book.weight("the") < book.weight("lad") < book.weight("unheard")


def test_a_query_is_its_words_findings_and_full_names():
    query = read_query("What is LBBB?")
    assert query.only_findings and query.findings == ("left bundle branch block",)
    assert query.terms == ["lbbb", "left", "bundle", "branch", "block", *["finding:left bundle branch block"] * 4]
    assert not read_query("R in LBBB").only_findings
    assert read_query("What is the normal axis?").findings == ("normal ecg",)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="passages: expected at least one"):
        Retriever.build([])
    with pytest.raises(ValueError, match="k: expected at least 1 passage, got 0"):
        Retriever.build(BOOK).search("LBBB", k=0)
    with pytest.raises(ValueError, match="dense: expected an index with embeddings"):
        Retriever.build(BOOK).search("LBBB", dense=True)


# ----- fusion --------------------------------------------------------------------------------------------------------


def test_ranks_are_fused_as_by_hand():
    fused = dict(reciprocal_rank_fusion([[4, 7], [7, 9, 4]]))
    assert fused == pytest.approx({4: 1 / 61 + 1 / 63, 7: 1 / 62 + 1 / 61, 9: 1 / 62})
    assert [row for row, _ in reciprocal_rank_fusion([[4, 7], [7, 4]])] == [4, 7]  # a tie: as the first ranking


class Directions:
    """An encoder that knows one passage: the query and page 5 point one way, all else another."""

    name = "directions"

    def encode(self, texts, progress=False):
        near = [[1.0, 0.0] if "hearts" in text or "QRS in LBBB" in text else [0.0, 1.0] for text in texts]
        return np.array(near, dtype=np.float32)


def test_dense_neighbours_join_those_of_bm25():
    book = Retriever.build(BOOK, Directions())
    assert book.is_dense
    hits = book.search("QRS in LBBB", k=3)
    assert pages(hits) == [2, 5, 1]  # the first of both rankings, BM25 before, then its second
    assert [hit.score for hit in hits] == pytest.approx([1 / 61, 1 / 61, 1 / 62])
    assert 5 not in pages(book.search("QRS in LBBB", k=9, dense=False))
