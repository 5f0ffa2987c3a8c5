"""The words of ECG descriptions: waves, what is said of them, lead groups, and words that mean the same.

Keys are lower-case phrases as `claims.py` cuts them: hyphens are spaces, plurals are singular, `R-R` is `rr` and
`ST-T` is `stt`. A pole is one end of an axis on which a wave can be described: polarity up or down, width wide or
narrow. Two poles of one axis exclude each other. Values follow ordinary ECG usage, as in the AHA/ACCF/HRS
recommendations, part II (https://doi.org/10.1161/CIRCULATIONAHA.106.180201).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
ALL_LEADS = frozenset(LIMB + CHEST + ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "V1R", "V2R"))

# a group is a loose word for its leads: "lateral" may mean V5 and V6 alone
LEAD_GROUPS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        name: frozenset(leads.split())
        for names, leads in {
            "inferior|diaphragmatic|inferiorly": "II III aVF",
            "lateral|laterally|left sided|left": "I aVL V5 V6 V4",
            "high lateral": "I aVL",
            "low lateral|lateral chest|lateral precordial|left chest|left precordial|apicolateral": "V4 V5 V6",
            "left ventricular": "I aVL V5 V6",
            "right chest|right precordial|right sided chest|anteroseptal precordial": "V1 V2 V3",
            "right sided": "V1 V2 V3 V3R V4R V5R V6R",
            "right ventricular": "V1 V2 V3 V4R V3R",
            "anterior|anteriorly|anterior chest|anterior precordial|mid precordial|midprecordial": "V1 V2 V3 V4",
            "septal": "V1 V2 V3",
            "anteroseptal": "V1 V2 V3 V4",
            "anterolateral": "V3 V4 V5 V6 I aVL",
            "inferolateral": "II III aVF V5 V6",
            "inferoposterior": "II III aVF V7 V8 V9",
            "apical": "V3 V4 V5",
            "posterior": "V7 V8 V9",
            "limb|extremity|frontal|frontal plane": "I II III aVR aVL aVF",
            "standard limb": "I II III",
            "augmented": "aVR aVL aVF",
            "chest|precordial|horizontal plane|v|thoracic": "V1 V2 V3 V4 V5 V6",
        }.items()
        for name in names.split("|")
    }
)

_WAVES = {
    "p": "p wave|p|p wave axis|atrial wave|atrial activity|atrial depolarization|p terminal force|terminal p",
    "q": "q wave|q",
    "r": "r wave|r|r'|r prime|r wave progression|r progression|r wave amplitude|second r wave|r voltage",
    "s": "s wave|s|s'",
    "t": "t wave|t",
    "u": "u wave|u",
    "st": "st segment|st|j point|j|st trough|reciprocal change",
    "st t": "stt|st t|stt segment|stt change|repolarization|st segment t wave|ventricular repolarization",
    "qrs": "qrs complex|qrs|ventricular complex|complex|qrst|ventricular depolarization|ventricular activation",
    "pr": "pr interval|pr|pq interval|pq|atrioventricular interval|av interval|av delay|pr duration"
    "|atrioventricular delay|av conduction time|atrioventricular conduction time",
    "pr segment": "pr segment|pq segment",
    "qt": "qt interval|qt|qtc|qtc interval|corrected qt interval|corrected qt",
    "rr": "rr interval|rr|cycle length|cardiac cycle|ventricular interval|beat interval",
    "pp": "pp interval|pp",
    "rp": "rp interval|rp",
    "tp": "tp segment|tp interval|tp",
    "j wave": "j wave|osborn wave|osborn",
    "delta": "delta wave|delta|initial slur|initial slurring",
    "epsilon": "epsilon wave|epsilon",
    "rs": "rs complex|rs|rs pattern|rs configuration",
    "qs": "qs complex|qs|qs pattern|qs wave|qs deflection",
    "qr": "qr complex|qr|qr pattern",
    "rsr": "rsr'|rsr' complex|rsr' pattern|rsr|rsr pattern|rsr complex|rr'|m shaped|m pattern",
    "flutter": "flutter wave|sawtooth wave|sawtooth|saw tooth|sawtooth flutter wave|saw toothed",
    "fibrillatory": "fibrillatory wave|fibrillation wave|fibrillatory activity|fibrillatory baseline",
    "spike": "pacing spike|spike|pacemaker spike|pacing artifact|pacing artefact|stimulus artifact|pacing stimulus"
    "|stimulation artifact|pacemaker artifact|pacer spike|stimulus artefact|pacing pulse",
    "axis": "axis|qrs axis|frontal axis|frontal qrs axis|electrical axis|frontal plane axis|frontal plane qrs axis"
    "|mean qrs axis|mean frontal axis|mean electrical axis|cardiac axis",
    "t axis": "t axis|t wave axis",
    "p axis": "p axis|p wave axis",
    "rate": "rate|heart rate|cardiac rate",
    "ventricular rate": "ventricular rate|ventricular response",
    "atrial rate": "atrial rate",
    "rhythm": "rhythm|cardiac rhythm|heart rhythm|ventricular rhythm",
    "pause": "pause|compensatory pause",
    "beat": "beat|early beat|heartbeat|extrasystole",
    "coupling": "coupling interval|coupling",
    "peak time": "r peak time|r wave peak time|intrinsicoid deflection|ventricular activation time|peak time"
    "|time to the r peak|time to peak|time to r peak|time to the r wave peak|intrinsicoid",
    "ratio": "r/s ratio|r/s|r to s ratio|rs ratio|r s ratio|ratio",
    "fusion": "fusion beat|fusion complex|fusion",
    "capture": "capture beat|capture complex",
    "transition": "transition|transition zone|precordial transition",
    "baseline": "baseline|isoelectric line|isoelectric baseline",
}
WAVES: Mapping[str, str] = MappingProxyType({name: wave for wave, names in _WAVES.items() for name in names.split("|")})
# mentioned at all, they need a passage that mentions them
TELLING_WAVES = frozenset(
    "u|delta|epsilon|rsr|flutter|fibrillatory|spike|fusion|capture|j wave|p axis|t axis".split("|")
)
# the shapes of the QRS, read also as the waves that they are made of
PARTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "qs": frozenset({"q", "qs"}), "rsr": frozenset({"rsr", "r"}), "st t": frozenset({"st", "t"}),
        "ventricular rate": frozenset({"rate", "ventricular rate"}), "atrial rate": frozenset({"rate", "atrial rate"}),
        "delta": frozenset({"delta"}), "rs": frozenset({"rs", "s", "r"}), "qr": frozenset({"qr", "q", "r"}),
    }
)  # fmt: skip

_POLES = {
    ("polarity", "up"): "elevated|elevation|elevate|elevating|raised|raise|raising|upright|positive|upward"
    "|upwardly|lifted|positively|bulge|bulging|upgoing|positivity|above the baseline|above baseline"
    "|above the isoelectric line",
    ("polarity", "down"): "depressed|depression|depress|inverted|inversion|invert|negative|downward|downwardly"
    "|negatively|downgoing|inverting|negativity|below the baseline|below baseline|below the isoelectric line",
    ("polarity", "flat"): "flat|flattened|flatten|flattening|isoelectric|level|isoelectrical",
    ("polarity", "biphasic"): "biphasic|diphasic|biphasically|equiphasic",
    ("size", "large"): "tall|high|large|increased|prominent|giant|deep|deeper|higher|taller|enlarged|exaggerated"
    "|dominant|deepest|tallest|bigger|big|larger|deeply|deepen|heighten|enlarge|huge|dominate|predominant|highest|great",
    ("size", "small"): "small|low|reduced|tiny|diminished|decreased|shallow|smaller|lower|minute|attenuated|reduction"
    "|diminutive|shallowly|poor",
    ("trend", "up"): "increase|increasing|grow|growing",
    ("trend", "down"): "decrease|decreasing|diminish|diminishing|fall|falling|shrink|decline",
    ("width", "wide"): "wide|broad|widened|broadened|prolonged|long|lengthened|longer|wider|extended|prolongation|widen"
    "|widening|broadening|lengthen|prolong|broader|lengthening|broaden",
    ("width", "narrow"): "narrow|short|shortened|shorter|brief|shorten|shortening|narrower",
    ("presence", "absent"): "absent|absence|missing|lost|loss|lack|lacking|disappear|replaced|replace|replacing|devoid"
    "|lose|abolished|disappearance|unidentifiable|undetectable|indiscernible|invisible|vanish|eliminated|remove|removed",
    ("presence", "hidden"): "hidden|buried|obscured|concealed|masked",
    ("presence", "present"): "present|visible|seen|identifiable|discernible|identified|recognizable|discernable"
    "|detectable|apparent|evident",
    ("regularity", "regular"): "regular|regularly|constant|fixed|equal|uniform|consistent|stable|steady|consistently"
    "|constantly|regularity|unchanging|unvarying|equally",
    ("regularity", "irregular"): "irregular|irregularly|variable|varying|vary|erratic|unpredictable|chaotic"
    "|irregularity|irregularly irregular|inconstant|unequal|varied|inconsistent",
    ("regularity", "progressive"): "progressive|progressively|gradual|gradually|incremental|successively",
    ("rate", "fast"): "fast|rapid|tachycardia|faster|rapidly|tachycardic|quick",
    ("rate", "slow"): "slow|slower|bradycardia|bradycardic|slowly|sluggish",
    ("side", "left"): "leftward|left axis|left axis deviation|left deviation|deviated to the left|shifted to the left"
    "|to the left|leftwards|left superior|left deviated",
    ("side", "right"): "rightward|right axis|right axis deviation|right deviation|deviated to the right"
    "|shifted to the right|to the right|rightwards|right inferior|right deviated",
    ("curve", "concave"): "concave|saddleback|saddle back|saddle shaped|upwardly concave|upward concave"
    "|concave upward|concavity",
    ("curve", "convex"): "convex|domed|dome shaped|upwardly convex|convex upward|convexity",
    ("curve", "coved"): "coved",
    ("slope", "up"): "upsloping|slope upward|ascending",
    ("slope", "down"): "downsloping|slope down|slope downward|descending",
    ("slope", "horizontal"): "horizontal",
    ("symmetry", "yes"): "symmetric|symmetrical|symmetrically",
    ("symmetry", "no"): "asymmetric|asymmetrical|asymmetrically",
    ("outline", "notched"): "notched|slurred|bifid|notch|notching|slurring|fragmented|slur",
    ("outline", "peaked"): "peaked|pointed|tented|peaking|spiky",
    ("outline", "rounded"): "rounded|blunt|smooth",
    ("timing", "early"): "early|premature|prematurely|earlier",
    ("timing", "late"): "late|delayed|later",
    ("conduction", "conducted"): "conducted",
    ("conduction", "blocked"): "blocked|dropped|nonconducted|unconducted|non conducted|fail to conduct",
    ("concordance", "same"): "concordant|same direction",
    ("concordance", "opposite"): "discordant|opposite|oppositely|opposed|point against|point away|turn against",
    ("state", "normal"): "normal|unremarkable|unchanged|normally|unaffected|preserved|physiologic|physiological",
}  # fmt: skip
POLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {word: pole for pole, words in _POLES.items() for word in words.split("|")}
)
# poles that may stand together
ALLIED = frozenset(
    {
        (("presence", "absent"), ("size", "small")), (("polarity", "flat"), ("size", "small")),
        (("curve", "coved"), ("curve", "convex")), (("outline", "notched"), ("outline", "peaked")),
    }
)  # fmt: skip

NUMERALS = ("two", "three", "four", "five", "six", "seven")
# words that exclude each other before the same noun: left or right bundle branch, every second or third beat
ALTERNATIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        word: tuple(other for other in words.split() if other != word)
        for words in (
            "left right", "anterior posterior inferior lateral septal", "first second third fourth",
            " ".join(NUMERALS), "typeone typetwo", "proximal distal", "upper lower",
        )
        for word in words.split()
    }
)  # fmt: skip

NEGATIONS = frozenset("no not without neither nor never none nt cannot non lacking".split())
HEDGES = frozenset(
    "may might can could possible possibly probable probably suspected suspicious suggest suggesting suggestive likely"
    " consider considered borderline perhaps potential potentially cannot uncertain equivocal would should if question"
    " questionable presumed apparently suspicion consistent compatible".split()
)
CONDITIONS = frozenset("unless if except when where often sometimes may can later phase then either usually".split())
DIFFERENTIAL = (
    "mimic", "distinguish", "differentiat", "differential", "unlike", "rather than", "instead of", "in contrast",
    "contrast to", "as opposed to", "confus", "mistaken", "resembl", "not to be", "exclud", "ruled out", "rule out",
    "look like", "similar to", "imitat", "compared with", "different from", "differs from", "favor", "argue",
    "speaks for", "speaks against", "think of",
)  # fmt: skip
EVERYWHERE = ("widespread", "diffuse", "throughout", "most leads", "generalized", "across", "limb leads")
ADDITIONS = ("also", "as well", "in addition", "additionally", "furthermore", "moreover", "accompanied by", "coexist")
ASSERTIONS = (
    "is present", "are present", "there is", "there are", "the ecg shows", "ecg demonstrates", "tracing shows",
    "this is", "confirms", "is seen", "is diagnostic", "diagnostic of", "the patient has", "definite", "clearly",
    "the recording shows", "is confirmed", "the rhythm is", "establishes", "proves", "this ecg", "this tracing",
)  # fmt: skip
# leads behind these are left out of what is said
EXCEPTING = frozenset("sparing spare except excepting excluding save bar".split())
SEPARATING = frozenset(
    "with while whereas but although though because since so that which who whose when where unless if after before"
    " followed accompanied together along despite".split()
)

_SAME = {
    "show": "shows display displays demonstrate demonstrates exhibit exhibits reveal reveals manifest manifests",
    "wide": "broad widened broadened widen widens broaden broadens widening width broadening wider broader",
    "long": "prolonged prolong prolongs prolongation lengthened lengthens longer lengthen extended lasts last duration",
    "up": "elevated elevation elevate elevates raised raise raises rise rises upward upright positive upwardly lifted",
    "down": "depressed depression depress depresses inverted inversion invert inverts negative downward",
    "high": "tall large increased prominent giant higher taller larger deep deeper height enlarged big increase"
    " enlarges dominant amplitude depth voltage deepest tallest",
    "low": "small reduced tiny diminished decreased shallow smaller lower minute reduction poor",
    "narrow": "short shortened shorter brief shortens shortening",
    "absent": "absence missing lost loss lack lacks lacking replaced replace replaces no without not disappear free",
    "regular": "constant fixed equal uniform consistent stable steady same regularly constantly identical unchanged"
    " regularity",
    "irregular": "variable varying varies vary changing change changes erratic unpredictable chaotic irregularly"
    " irregularity different differ differs variation unequal",
    "fast": "rapid tachycardia accelerated faster rapidly tachycardic quick speed speeds",
    "slow": "slower bradycardia bradycardic slowly slowed slowing",
    "early": "premature prematurely earlier",
    "late": "delayed later delay delays",
    "abnormal": "abnormality pathological pathologic abnormally significant",
    "pre": "precede precedes preceded preceding before prior ahead",
    "post": "follow follows followed following after behind succeeding subsequent next succeeds",
    "infarct": "infarction infarcted necrosis",
    "ischemia": "ischemic ischaemia",
    "injury": "injured acute",
    "atrium": "atrial atria auricular",
    "ventricle": "ventricular ventricles",
    "beat": "beats complex complexes contraction contractions extrasystole heartbeat qrs",
    "notch": "notched notching slurred slur slurring bifid notches hump humps slurs",
    "opposite": "discordant against opposed oppose reciprocal away mirror opposes mirrored",
    "begin": "begins start starts onset beginning initial first",
    "end": "ends ending terminal last final terminates stop stops termination",
    "flat": "flattened flattens level isoelectric flattening",
    "pointed": "peaked tented sharp spiky",
    "hidden": "buried masked concealed obscured hide hides invisible merge merged merges fuse fuses fused",
    "block": "blocked blocks nonconducted interrupted dropped dropping drop unconducted",
    "pace": "paced pacing pacemaker stimulus stimulated stimulates spike spikes artificial",
    "ectopic": "ectopy focus foci",
    "left": "leftward", "right": "rightward",
    "axis": "axes vector direction",
    "progress": "progressive progressively gradually gradual progression",
    "chest": "precordial", "limb": "extremity",
    "adjacent": "contiguous neighbouring neighboring consecutive successive",
    "two": "both second pair pairs couplet", "three": "third", "four": "fourth",
    "fascicular": "fascicle fascicles hemiblock",
    "point": "suggest suggests indicate indicates support supports mark marks favour favours favor favors imply implies"
    " suspicion",
    "supraventricular": "sv",
    "circuit": "reentry reentrant reentering",
    "preexcitation": "preexcited preexcite",
    "unrelated": "independent independently dissociated dissociation relation relationship unlinked",
    "often": "frequent frequently usually mostly commonly common most typical typically",
    "diffuse": "widespread generalized throughout all every each any across",
    "shape": "morphology configuration form contour appearance pattern shaped",
    "interval": "distance spacing time gap",
    "complete": "total third",
    "combination": "combine combines combined joins join together combining",
    "enlargement": "enlarged overload dilatation hypertrophy enlargements",
}  # fmt: skip
SAME: Mapping[str, str] = MappingProxyType({word: head for head, words in _SAME.items() for word in words.split()})

# words that claim nothing
EMPTY = frozenset(
    "a an the of in on at to for from by with as is are was were be been being has have had do does it its this that"
    " these those there which who whose than then and or but nor so also such while whereas where when if into over"
    " out off up their they them itself one ones other others some can could may might will would should must shall"
    " lead leads ecg electrocardiogram electrocardiographic tracing recording trace wave waves segment segments"
    " complex complexes interval intervals deflection show shows showing shown display displays demonstrate"
    " demonstrates exhibit exhibits reveal reveals see seen note noted observed observe appear appears appearing"
    " appearance present presence find found finding findings feature features characterized characterised typical"
    " typically characteristic pattern patterns pronounced least more less above below under exceed exceeds exceeding"
    " exceeded most about around approximately roughly between within beyond greater equal value values measure"
    " measures measured measuring reach reaches give gives giving gave produce produces mean means describe described"
    " ms mv mm bpm degree degrees second seconds minute per very often usually sometimes generally commonly frequently"
    " mainly mostly primarily well clearly distinct visible both either each every any all several many few best"
    " together along beside besides during throughout through across because due result results resulting caused cause"
    " causes condition diagnosis diagnostic diagnosed criteria criterion sign signs evidence here however thus"
    " therefore hence furthermore additionally addition moreover overall respectively usual even only just own not no"
    " without"
    " specifically associated association accompanied accompany accompanies accompanying related including include"
    " includes involving involve involves example e g i ii iii way kind type make makes made become becomes becoming"
    " indicate indicates indicating reflect reflects reflecting suggest suggests suggesting consistent typical keep"
    " keeps come comes coming occur occurs occurring remain remains stay stays lie lies stand stands exist exists"
    " defined define considered recorded consist consists contain contains limit limits patient patients adult"
    " adults case cases what how instead still again after before lasts last lasting duration amplitude size"
    " width height".split()
)  # fmt: skip
