"""One spelling for all machines: the words of a statement, its abbreviations written out, plurals made singular.

`PVC(S)`, `ventricular-paced`, `A-V`, `Repol abnrm, lateral lds` and `1st deg` come out as the table of findings, the
modifiers and the statements all write them, because all three pass through `words_of`.
"""

from __future__ import annotations

import re

_SEPARATED = "[-/ ]?"
_TERRITORY_TAIL = "(septal|lateral|posterior|apical|basal|inferior|posterolateral|superior)"
_COMPOUND = (
    "(specific|sustained|diagnostic|conducted|transmural|capture|cap|noncapt|focal|form|phasic|operative|operatively"
    "|excitation|ventricular|atrial|fascicular|sensing|polarization|entrant|entry)"
)
_ARTERY = r"(?:prox\w*|mid|dist\w*|or|and|lad|rca|lcx|lmca|lm|mvd)"
_FIBRILLATION = r"\b(?:atrial |a-?)?fib(?:rillation)?"
_FLUTTER = r"\b(?:atrial |a-?)?flut(?:ter)?"
_WAVE = "(?:st|[pqrstu]|qtc?|pr)(?: waves?| segments?| intervals?)?"
_SAID = "depressed|elevated|inverted|prolonged|flat|tall|peaked|notched|biphasic|low|prominent|wide|short|absent"
_BEAT = r"(complex\w*|beats?|contractions?)"
# in this order, on lower-case text
_REWRITES: tuple[tuple[str, str], ...] = (
    (r"[\u2018\u2019\u0060\u00b4]", "'"),
    (r"[\u2010-\u2015\u2212]", "-"),
    (rf"\({_ARTERY}(?:[ ,/]+{_ARTERY})*\)", " "),
    (r"\([^()]*(?:cornell|sokolow|romhilt|estes|gubner)[^()]*\)", " "),
    (r"\b\d{1,2}-(?:[a-z]{3}|\d{1,2})-\d{2,4}\b", " "),
    (r"\bprobabl[ey] normal(?=\W*$)", "normal variant"),
    (r"[*!?\"_=<>|~^#%\[\]{}()\\\u00b0]", " "),
    (r"\band ?/ ?or\b", "or"),
    (r"(?<=\d) ?(?=(?:bpm|ms|msec|mv|mm|sec|cm)\b)", " "),
    (r"\bw/o\b", "without"),
    (r"\bw/ ?", "with "),
    (r"\bi\. ?v\. ?", "iv "),
    (r"\br ?[/:] ?s\b", "r/s"),
    (r"\bqt ?/ ?qtc\b", "qt"),
    (r"\bt-u\b", "t u"),
    (r"\b([pqrj])-([rqt]c?)\b", r"\1\2"),
    (r"\belectrical (?=axis\b)", ""),
    (r"\b((?:qrs |frontal )*axis) is (indeterminate|undetermined|leftward|rightward)\b", r"\2 \1"),
    (r"\bprecordial (?=(?:r|r wave|r/s|qrs) (?:progression|transition)\b)", ""),
    (r"\br-?s-?r ?(?:'|prime\b)", "rsr'"),
    (r"excitat'n\b", "excitation"),
    (r"\bacces'y\b", "accessory"),
    (r"\bst ?(?:-|/|&|\+|and|or) ?t(?= |-|$|,|\.|/)(?!-u)", "st-t"),
    (r"\bst t(?= (?:wave|change|abn|segment))", "st-t"),
    (r"\b(?:a-v|a\. ?v\.|atrio-?ventricular)(?=\W|$)", "av"),
    (r"\b(?:s-a|s\. ?a\.|sino-?atrial|sinu-?atrial)(?=\W|$)", "sa"),
    (rf"\bant(?:ero|\.)?{_SEPARATED}(?={_TERRITORY_TAIL}\b)", "antero"),
    (r"\banterior (?=(?:septal|lateral|apical)\b)", "antero"),
    (r"\babn(?:rml?|l|orm)?\.?(?= (?:st|st-t|t|q|p|qrs|r|ecg)\b)", "abnormal"),
    (rf"\binf(?:ero|\.)?[-/](?={_TERRITORY_TAIL}\b)", "infero"),
    (rf"\binferior-(?={_TERRITORY_TAIL}\b)", "infero"),
    (rf"\banterior-(?={_TERRITORY_TAIL}\b)", "antero"),
    (rf"\bposterior-(?={_TERRITORY_TAIL}\b)", "postero"),
    (rf"\bpostero-(?={_TERRITORY_TAIL}\b)", "postero"),
    (rf"\b(non|multi|uni|poly|bi|post|pre|re|intra|inter|tri)(?:-| )(?={_COMPOUND})", r"\1"),
    (r"\bnon-?q\b", "non q"),
    (r"\b(v[1-9]r?) ?(?:-|to|thru|through|\.\.\.?) ?(v?[1-9])\b", r"\1-\2"),
    (r"\bv ?([1-9]) ?- ?(?=[1-9]\b)", r"v\1-v"),
    (r"\b(\d) ?(?::| to ) ?(\d)\b(?!\d)", r"\1:\2"),
    (r"\b(?:1-?st|i(?:st)?(?= degree)|1(?= ?deg)|(?<![:\d])1(?= avb?\b))", "first "),
    (r"\b(?:2-?nd|ii(?= degree)|2(?= ?deg))", "second "),
    (r"\b(?:3-?rd|iii(?= degree)|3(?= ?deg))", "third "),
    (r"\bsinus or ((?:\w+ ){1,3}?)(rhythm|bradycardia|tachycardia)\b", r"sinus \2 or \1\2"),
    (rf"{_FIBRILLATION} ?(?:/|or|-) ?(?:atrial )?flut(?:ter)?\b", "atrial fibrillation or atrial flutter"),
    (rf"{_FLUTTER} ?(?:/|or|-) ?(?:atrial )?fib(?:rillation)?\b", "atrial flutter or atrial fibrillation"),
    (r"\b(left|right) ?(?:or|and|/) ?(left|right) (atrial|ventricular) (\w+)", r"\1 \3 \4 and \2 \3 \4"),
    (r"\bpremature (ventricular|atrial|junctional)(?= or aberrant)", r"premature \1 complex"),
    (rf"\b({_WAVE}) (?:is |are )?(no longer|not) ({_SAID})\b", r"\2 \3 \1"),
    (rf"\b({_WAVE}) (?:is|are) (?:\w+ly )?({_SAID})\b", r"\2 \1"),
    (r"\blad (?=isch|infarct|stenosis|occlusion|territory)", " "),
    (r"\b(rvh|right ventricular hypertrophy)((?: \w+)?) (strain)\b", r"\1\2 rv \3"),
    (r"\bfail\w* to (sense|capture|pace) ?(?:and|or|/) ?(sense|capture|pace)\b", r"failure to \1 or failure to \2"),
    (rf"\bpremature {_BEAT},? vent\w* ?(?:&|and|/) ?suprav\w*", "vpc and svpc"),
    (rf"\bpremature {_BEAT},? (ventricular|vent|supraven\w*|atrial|junctional)\b", r"\2 premature \1"),
    (r"\b(?:prox\w* |mid |dist\w* )?(?:rca|lcx|lmca|culprit artery)\b(?: or (?:lad|lcx|rca))?|(?<=acute )lad\b", " "),
    (r"\blm ?/ ?mvd\b", " "),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _REWRITES)

SEPARATORS = frozenset({",", ";", ".", "-", ":"})
_TOKEN = re.compile(r"v[1-9]r?-v?[1-9]|\d+:\d+|st-t|r/s|[^\W_]+(?:'[^\W_]*)?|(?<= )-+(?= )|--+|[,;:+/&]|\.(?!\d)")

_SPELLED_OUT = {
    word: full
    for full, words in {
        "abnormality": "abnrm abnormalty abnorm abn abnl abnormalities abnrmality",
        "repolarization": "repol repolarisation repolariztn repolarizatn",
        "probable": "prob probably likely presumably presumed probbly",
        "possible": "poss possibly questionable perhaps potential potentially conceivably",
        "borderline": "bord brdrline marginal bdl",
        "lead": "lds ld leads lead's",
        "ventricular": "vent ventr ventricle ventricles vntrclr",
        "infarction": "infarct infarcts infarctions infarc infrct infarcted",
        "depression": "depr depressions dep",
        "elevation": "elev elevations elevatn",
        "undetermined": "undet indeterminate unknown uncertain undeterminate indet undtrmnd unspecified",
        "bradycardia": "bradycardic",
        "tachycardia": "tachy tachycardic tachycardias",
        "nonspecific": "nonspec unspecific nonspecif nsp",
        "incomplete": "incompl inc incomp",
        "complete": "compl comp",
        "consider": "cons considered considering",
        "suggest": "suggests suggesting suggestive suggested sugg",
        "degree": "deg degr",
        "first": "1st",
        "second": "2nd",
        "third": "3rd",
        "ischemia": "ischaemia isch ischem",
        "ischemic": "ischaemic",
        "hyperkalemia": "hyperkalaemia",
        "hypokalemia": "hypokalaemia",
        "hypercalcemia": "hypercalcaemia",
        "hypocalcemia": "hypocalcaemia",
        "inferior": "inf infer",
        "anterior": "ant anter",
        "lateral": "lat latrl",
        "posterior": "postr posteriorly",
        "septal": "sept septum",
        "hypertrophy": "hypertr hypertrophic hyper",
        "enlargement": "enlarg enlgmt enlarged enl",
        "deviation": "dev devn deviated",
        "interval": "int intvl intervals",
        "prolonged": "prol prolong prlngd",
        "conduction": "cond conductn",
        "reentrant": "reentry",
        "supraventricular": "sv supravent supraventr supraven supraventric",
        "intraventricular": "intravent intraventr",
        "premature": "prem",
        "complex": "complexes cmplx complexs",
        "stimulus": "stimuli",
        "rhythm": "rhythms rhy",
        "variation": "variatn",
        "moderate": "mod moderately",
        "minimal": "min minimally minor minimum",
        "frequent": "freq frequently",
        "occasional": "occ occas occasionally",
        "abnormal": "abnormally",
        "nonsustained": "unsustained",
        "noncapture": "noncapt noncap noncaptured",
        "postoperative": "postop",
        "generalized": "generalised",
        "analyzed": "analysed",
        "recommend": "recommended",
        "aberrant": "abberant abberent",
        "aberrantly": "abberantly",
        "ecg": "ekg electrocardiogram ecgs",
        "av": "atrioventricular",
        "sa": "sinoatrial",
        "patient": "patient's pt",
        "because": "bc",
        "marked": "markedly",
        "severe": "severely",
        "voltage": "volt voltages",
        "extensive": "extens",
        "left": "lt",
        "right": "rt",
    }.items()
    for word in words.split()
}
_STAYS = frozenset("axis is as has was this does torsades previous less loss its ves always sinus s us".split())


def _singular(word: str) -> str:
    if len(word) < 4 or word in _STAYS or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("xes", "ches", "shes")) else word[:-1]


def words_of(text: str) -> tuple[str, ...]:
    """The words and separators (`, ; . : - + / &`) of a text in their common spelling; leads come out in lower case.

    >>> words_of("Repol abnrm, lateral lds")
    ('repolarization', 'abnormality', ',', 'lateral', 'lead')
    >>> words_of("SINUS RHYTHM WITH PVC(S) - 2ND DEG. A-V BLOCK")
    ('sinus', 'rhythm', 'with', 'pvc', '-', 'second', 'degree', 'av', 'block')
    """
    text = re.sub(r"\(e?s\)", "", text.casefold())
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    words = [_SPELLED_OUT.get(word, word) for word in _TOKEN.findall(f" {text} ")]
    words = [_SPELLED_OUT.get(_singular(word), _singular(word)) for word in words]
    return tuple("-" if word.startswith("--") else word for word in _without_abbreviation_points(words))


def _without_abbreviation_points(words: list[str]) -> list[str]:
    """`deg.` is `degree`: its full stop ends no sentence."""
    return [word for at, word in enumerate(words) if not (word == "." and at and words[at - 1] == "degree")]
