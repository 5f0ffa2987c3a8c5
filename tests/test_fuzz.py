"""Mutated files of every format become a record or one clear sentence: nothing else, nowhere else, fast and small.

    pytest tests/test_fuzz.py                                 # 300 mutations
    pytest tests/test_fuzz.py -m slow                         # 20,000
    ESI_FUZZ=100000 pytest tests/test_fuzz.py -m slow         # as many as you like

A mutation is known by its number: `mutate(seeds(), number)` gives the same bytes on every machine that has the same
seed files. Those that found something are kept below as tests of their own.
"""

import concurrent.futures
import inspect
import io
import logging
import multiprocessing
import os
import re
import resource
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tiny_wfdb import matlab_header, random_integers, write_record

from datasets_scripts.records import ECGRecord, read_record

ROOT = Path(__file__).resolve().parent.parent
SHARED = next((folder for folder in (ROOT / "shared/data", ROOT.parent / "shared/data") if folder.is_dir()), None)
READ_OPTIONS = inspect.signature(read_record).parameters
MOST_SECONDS, MOST_MEGABYTES, LONGEST_MESSAGE = 1.0, 200, 2000
NASTY = (
    "0 -1 1 2 3 7 255 256 65535 65536 -32768 32768 10000 1000000 2147483647 2147483648 4294967296 1000000000000 "
    "99999999999999999999 1e999 -1e-999 nan inf 0x7f 1/0 () ~ # % : . .. / ../outside.dat ../outside /etc/passwd "
    "http://127.0.0.1:9/x.dat file:///etc/passwd 8 16 24 32 61 80 160 212 310 311 508 516 524 16x2 212x3:5+24 16:9999 "
    "16+24 rec.dat mV uV furlong \xe9 \x00 \x85 \u2028 <!DOCTYPE &x; true null"
).split(" ")


# ---------------------------------------------------------------- the seeds: valid files, generated and real


@dataclass
class Seed:
    """The files of one recording, by name; `path` is read, with `options` where `read_record` takes them."""

    path: str
    files: dict[str, bytes]
    weight: float = 1.0
    options: dict = field(default_factory=dict)


def generated_seeds(folder: Path) -> list[Seed]:
    """A small valid recording of every format that can be written without a package."""
    integers = random_integers(40, 3)
    write_record(folder, "sixteen", integers, comments="#Age: 50\n#Sex: F\n#Dx: 426783006\n")
    write_record(folder, "packed", integers[:37], fmt="212")
    write_record(folder, "matlab", integers, before=matlab_header(3, 40))
    write_record(folder, "other", integers, leads=("PLETH", "V1", "V2"))
    frames = write_record(folder, "frames", integers[:, :1], leads=("II",))
    frames.write_text(frames.read_text().replace("1 250 40", "1 125 20").replace(".dat 16 ", ".dat 16x2:1 "))
    wide = write_record(folder, "wide", integers)
    wide.write_text(re.sub(r"\.dat 16 .* 0 (\w+)\n", r".dat 80 10/uV 8 0 0 0 0 \1\n", wide.read_text()))
    (folder / "several.hea").write_text("several/3 3 250 87\nsixteen 40\n~ 10\npacked 37\n")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    pairs = ("sixteen.hea", "packed.hea", "matlab.hea", "other.hea", "frames.hea", "wide.hea")
    seeds = [Seed(name, {k: v for k, v in files.items() if k.startswith(name[:-3])}, 3) for name in pairs]
    several = {name: files[name] for name in ("several.hea", "sixteen.hea", "sixteen.dat", "packed.hea", "packed.dat")}
    return [
        *seeds,
        Seed("several.hea", several),
        *array_seeds(integers / 200),
        *xml_seeds(integers),
        edf_seed(integers),
    ]


def array_seeds(millivolts: np.ndarray) -> list[Seed]:
    """`.npy` (version 1, C and Fortran order) and CSV with and without header and times."""
    told = {"sampling_rate": 250.0, "leads": ("I", "II", "V5")}
    arrays = []
    for name, array in (("a.npy", millivolts), ("f.npy", np.asfortranarray(millivolts.astype(np.float32)))):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        arrays.append(Seed(name, {name: buffer.getvalue()}, options=told))
    rows = "\n".join(",".join(f"{value:.3f}" for value in row) for row in millivolts)
    timed = "\n".join(f"{number / 250:.3f},{row}" for number, row in enumerate(rows.split("\n")))
    named = Seed("named.csv", {"named.csv": f"time,I,II,V5\n{timed}\n".encode()}, 2)
    return [*arrays, named, Seed("plain.csv", {"plain.csv": f"{rows}\n".encode()}, options=told)]


def xml_seeds(integers: np.ndarray) -> list[Seed]:
    """A short HL7 aECG and a short GE MUSE export."""
    import base64

    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead}" codeSystem="2.16.840.1.113883.6.24"/><value '
        f'xsi:type="SLIST_PQ"><origin value="0" unit="uV"/><scale value="5" unit="uV"/><digits>'
        f"{' '.join(map(str, column))}</digits></value></sequence></component>"
        for lead, column in zip(("I", "II", "V5"), integers.T, strict=True)
    )
    time_axis = (
        '<component><sequence><code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/>'
        '<value xsi:type="GLIST_TS"><head value="20200101120000.000"/><increment value="0.004" unit="s"/></value>'
        "</sequence></component>"
    )
    aecg = (
        '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><component><series>'
        '<code code="RHYTHM" codeSystem="2.16.840.1.113883.5.4"/><component><sequenceSet>'
        f"{time_axis}{sequences}</sequenceSet></component></series></component></AnnotatedECG>"
    )
    leads = "".join(
        f"<LeadData><LeadByteCountTotal>80</LeadByteCountTotal><LeadSampleCountTotal>40</LeadSampleCountTotal>"
        f"<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
        f"<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize><WaveFormData>"
        f"{base64.b64encode(column.astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for lead, column in zip(("I", "II", "V5"), integers.T, strict=True)
    )
    muse = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><RestingECG><PatientDemographics><PatientAge>50</PatientAge>'
        "<AgeUnits>YEARS</AgeUnits><Gender>MALE</Gender></PatientDemographics><Waveform><WaveformType>Rhythm</WaveformType>"
        f"<NumberofLeads>3</NumberofLeads><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform>"
        "</RestingECG>"
    )
    return [Seed("a.xml", {"a.xml": aecg.encode()}, 2), Seed("muse.xml", {"muse.xml": muse.encode()}, 2)]


def edf_seed(integers: np.ndarray) -> Seed:
    """EDF (https://www.edfplus.info/specs/edf.html): one record of 40 samples in 0.16 s, two leads."""
    signals = (("ECG I", "ECG II"), ("", ""), ("uV", "uV"), ("-1000", "-1000"), ("1000", "1000"), ("-1000", "-1000"))
    signals += (("1000", "1000"), ("", ""), ("40", "40"), ("", ""))
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    head = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80) + "01.01.2012.00.00" + "768".ljust(8)
    head += "".ljust(44) + "1".ljust(8) + "0.16".ljust(8) + "2".ljust(4)
    head += "".join(value.ljust(width) for values, width in zip(signals, widths, strict=True) for value in values)
    return Seed("a.edf", {"a.edf": head.encode() + integers.T[:2].astype("<i2").tobytes()}, 2)


def dicom_seeds(integers: np.ndarray) -> list[Seed]:
    """A DICOM 12-lead ECG of three leads, where pydicom is installed."""
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid
    except ImportError:
        return []
    channels = []
    for lead, code in (("Lead I", "2:1"), ("Lead II", "2:2"), ("Lead V5", "2:7")):
        source, unit, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = code, "MDC", lead
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = "5", "1", "0"
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group, ecg, meta = Dataset(), Dataset(), FileMetaDataset()
    group.WaveformOriginality, group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = "ORIGINAL", 3, 40
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = "250", 16, "SS"
    group.ChannelDefinitionSequence, group.WaveformData = channels, integers.astype("<i2").tobytes()
    meta.MediaStorageSOPClassUID = ecg.SOPClassUID = TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = ecg.SOPInstanceUID = generate_uid(entropy_srcs=["fuzz"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ecg.file_meta, ecg.Modality, ecg.WaveformSequence = meta, "ECG", [group]
    buffer = io.BytesIO()
    ecg.save_as(buffer, enforce_file_format=True)
    return [Seed("a.dcm", {"a.dcm": buffer.getvalue()}, 2)]


def real_seeds() -> list[Seed]:
    """The oddities of ../shared/data/formats and one record of every Challenge set, where they are."""
    if SHARED is None:
        return []
    names = ("3000003_0003", "test01_00s", "a103l", "03700181", "s0010_re")
    headers = [SHARED / "formats" / "wfdb" / f"{name}.hea" for name in names]
    headers += [sorted((SHARED / "physionet2021" / name).glob("*.hea"))[0] for name in ("JS", "HR", "E", "Q", "A")]
    seeds = []
    for header in headers:
        files = [
            path for path in header.parent.glob(f"{header.stem}.*") if path.suffix in (".hea", ".dat", ".mat", ".xyz")
        ]
        seeds.append(Seed(header.name, {path.name: path.read_bytes() for path in sorted(files)}, 0.5))
    single = [path for folder in ("dicom", "aecg", "scp") for path in sorted((SHARED / "formats" / folder).iterdir())]
    return seeds + [Seed(path.name, {path.name: path.read_bytes()}, 0.3) for path in single]


def seeds(folder: Path) -> list[Seed]:
    """All seeds, in an order that never changes; `folder` is an empty one to work in."""
    return generated_seeds(folder) + dicom_seeds(random_integers(40, 3)) + real_seeds()


# ---------------------------------------------------------------- the mutations


def mutate(corpus: list[Seed], number: int) -> tuple[int, str, bytes]:
    """Mutation `number`: which seed, which of its files, and the bytes that stand in it instead."""
    rng = np.random.default_rng([2405, 19366, number])
    weights = np.array([seed.weight for seed in corpus])
    which = int(rng.choice(len(corpus), p=weights / weights.sum()))
    names = sorted(corpus[which].files, key=lambda name: (not name.endswith(".hea"), name))
    name = names[0] if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
    raw = corpus[which].files[name]
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 8]))):
        raw = MUTATIONS[int(rng.integers(len(MUTATIONS)))](raw, rng)
    return which, name, raw


def place(raw: bytes, rng: np.random.Generator) -> int:
    """Somewhere in the file; every second time near its begin, where headers are."""
    return int(rng.integers(min(len(raw), 600 if rng.random() < 0.5 else len(raw)) + 1))


def flip(raw: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(raw)
    for _ in range(int(rng.integers(1, 9))):
        if changed:
            changed[min(place(raw, rng), len(raw) - 1)] = int(rng.integers(256))
    return bytes(changed)


def cut(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw[: place(raw, rng)]


def take_out(raw: bytes, rng: np.random.Generator) -> bytes:
    start = place(raw, rng)
    return raw[:start] + raw[start + int(rng.integers(1, 20)) :]


def insert(raw: bytes, rng: np.random.Generator) -> bytes:
    start = place(raw, rng)
    return raw[:start] + rng.bytes(int(rng.integers(1, 20))) + raw[start:]


def repeat(raw: bytes, rng: np.random.Generator) -> bytes:
    start = place(raw, rng)
    part = raw[start : start + int(rng.integers(1, 200))]
    return raw[:start] + part * int(rng.integers(2, 50)) + raw[start:]


def nasty_word(raw: bytes, rng: np.random.Generator) -> bytes:
    """One word, or one number within a word, becomes another."""
    pattern = rb"[^\s<>\",=]+" if rng.random() < 0.5 else rb"-?\d+(?:\.\d+)?"
    words = list(re.finditer(pattern, raw[:20_000]))
    if not words:
        return raw
    word = words[int(rng.integers(len(words)))]
    return raw[: word.start()] + NASTY[int(rng.integers(len(NASTY)))].encode("utf-8") + raw[word.end() :]


def nasty_integer(raw: bytes, rng: np.random.Generator) -> bytes:
    """Two, four or eight bytes become a small, a negative or a huge number."""
    start, width = place(raw, rng), int(rng.choice([2, 4, 8]))
    value = int(rng.choice([0, 1, 2, -1, 255, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 2 ** (8 * width - 2)]))
    return raw[:start] + value.to_bytes(width, "little", signed=True) + raw[start + width :]


def swap_lines(raw: bytes, rng: np.random.Generator) -> bytes:
    lines = raw.split(b"\n")
    first, second = (int(rng.integers(len(lines))) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


MUTATIONS = (flip, cut, take_out, insert, repeat, nasty_word, nasty_word, nasty_word, nasty_integer, swap_lines)


# ---------------------------------------------------------------- reading them


class Watch:
    """What this process opens, as an audit hook sees it."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.active = True  # a hook stays for ever
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            self.opened.append(os.fsdecode(arguments[0]))
        elif event.startswith("socket."):
            self.opened.append(event)

    def outside(self, folder: Path) -> list[str]:
        """What was opened but for the files in `folder` and the parts of Python that are loaded late."""
        own = tuple(f"{os.path.realpath(prefix)}/" for prefix in (folder, sys.prefix, sys.base_prefix, ROOT))
        return [path for path in self.opened if not os.path.realpath(path).startswith(own)]


def read_seed(seed: Seed, folder: Path) -> ECGRecord | Exception:
    """The record, or what was raised, whatever it is."""
    options = {name: value for name, value in seed.options.items() if name in READ_OPTIONS}
    try:
        return read_record(folder / seed.path, **options)
    except Exception as error:  # what must not be raised is what this looks for
        return error


def complaint(result: object, seed: Seed, folder: Path) -> str | None:
    """What is wrong with the result of reading, None if nothing is."""
    if isinstance(result, ECGRecord):
        return None if result.num_samples and result.num_leads else "an empty record"
    if not isinstance(result, ValueError | OSError):
        return f"raised {result!r}"
    message = str(result)
    if len(message.splitlines()) != 1 or len(message) > LONGEST_MESSAGE:
        return f"a message of {len(message.splitlines())} lines, {len(message)} characters: {message[:300]!r}"
    if str(folder) not in message and not any(name in message for name in seed.files):
        return f"a message that does not name the file: {message!r}"
    return None


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture(autouse=True)
def logs_afterwards():
    """`fuzz` silences logs and warnings for its process; where a test calls it in this one, the others keep theirs."""
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


def fuzz(numbers: range, folder: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Read mutations: what was wrong, and for each seed how many became a record, and how many did not.

    It runs in a process of its own, so that memory can be measured and a crash is told from a failure.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    (folder / "outside.dat").write_bytes(bytes(1000))
    (folder / "seeds").mkdir()
    corpus, folders = seeds(folder / "seeds"), []
    for index, seed in enumerate(corpus):
        folders.append(folder / f"{index}_{seed.path.replace('.', '_')}")
        folders[-1].mkdir()
        for name, raw in seed.files.items():
            (folders[-1] / name).write_bytes(raw)
        read_seed(seed, folders[-1])  # what is imported late is imported now
    wrong, counts, watch = [], {seed.path: (0, 0) for seed in corpus}, Watch()
    before = peak_megabytes()
    for number in numbers:
        which, name, raw = mutate(corpus, number)
        seed, own = corpus[which], folders[which]
        (own / name).write_bytes(raw)
        watch.opened.clear()
        start = time.process_time()
        result = read_seed(seed, own)
        seconds, outside = time.process_time() - start, watch.outside(own)
        kept, refused = counts[seed.path]
        good = isinstance(result, ECGRecord)
        counts[seed.path] = (kept + good, refused + (not good))
        found = [complaint(result, seed, own)]
        found += [f"took {seconds:.1f} s"] if seconds > MOST_SECONDS else []
        found += [f"opened {outside}"] if outside else []
        if peak_megabytes() - before > MOST_MEGABYTES:
            found.append(f"took {peak_megabytes() - before:.0f} MB")
            before = peak_megabytes()
        wrong += [f"mutation {number} ({seed.path}, {name}): {text}" for text in found if text]
        (own / name).write_bytes(seed.files[name])
    watch.active = False
    return wrong, counts


def fuzz_apart(numbers: range, folder: Path) -> dict[str, tuple[int, int]]:
    """`fuzz` in a fresh process; fails with all that was wrong."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        wrong, counts = executor.submit(fuzz, numbers, folder).result()
    assert not wrong, f"{len(wrong)} of {len(numbers)} mutations:\n" + "\n".join(wrong[:30])
    return counts


def test_300_mutations(tmp_path):
    counts = fuzz_apart(range(300), tmp_path)
    assert sum(kept for kept, _ in counts.values()) > 10 and sum(refused for _, refused in counts.values()) > 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_20000_mutations_or_as_many_as_asked_for(tmp_path):
    count = int(os.environ.get("ESI_FUZZ", "20000"))
    counts = fuzz_apart(range(300, 300 + count), tmp_path)
    for path in ("sixteen.hea", "packed.hea", "matlab.hea", "frames.hea", "several.hea"):
        kept, refused = counts[path]
        assert kept and refused, f"{path}: {kept} read, {refused} refused; these mutations are too strong, or too weak"


def test_seeds_are_valid(tmp_path):
    """Every generated WFDB file is read before it is mutated; so is any other that `read_record` knows."""
    (tmp_path / "work").mkdir()
    for seed in generated_seeds(tmp_path / "work"):
        for name, raw in seed.files.items():
            (tmp_path / name).write_bytes(raw)
        result = read_seed(seed, tmp_path)
        known = seed.path.endswith(".hea") or len(READ_OPTIONS) > 1
        assert isinstance(result, ECGRecord) or not known, f"{seed.path}: {result!r}"


# ---------------------------------------------------------------- the fuzzer itself, and what it found


def open_outside(path):
    with (path.parent.parent / "outside.dat").open("rb") as file:
        raise ValueError(f"{path}: {len(file.read())}")


def take_time(path):
    start = time.process_time()
    while time.process_time() - start < 0.15:
        pass
    raise ValueError(f"{path}: slow")


def raise_error(error):
    def read(path):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (raise_error(KeyError("x")), r"raised KeyError\('x'\)"),
        (raise_error(MemoryError()), r"raised MemoryError"),
        (raise_error(ValueError("no file is named")), "does not name the file"),
        (lambda path: raise_error(ValueError(f"{path}\n!"))(path), "a message of 2 lines"),
        (lambda path: raise_error(ValueError(f"{path}{'x' * 5000}"))(path), "characters"),
        (open_outside, "outside.dat"),
        (take_time, r"took 0\.\d s"),
        (lambda path: None, "None"),
    ],
)
def test_the_fuzzer_finds_what_it_looks_for(tmp_path, monkeypatch, read, found):
    monkeypatch.setattr(sys.modules[__name__], "read_record", read)
    monkeypatch.setattr(sys.modules[__name__], "seeds", lambda folder: generated_seeds(folder)[:1])
    monkeypatch.setattr(sys.modules[__name__], "MOST_SECONDS", 0.1)
    wrong, _ = fuzz(range(1), tmp_path)
    assert len(wrong) == 1 and re.search(found, wrong[0]), wrong


def test_the_fuzzer_finds_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "seeds", lambda folder: generated_seeds(folder)[:1])
    peaks = iter(
        [100.0, 110.0, 410.0, 410.0, 410.0, 420.0]
    )  # before; after the first, the second (three times), the third
    monkeypatch.setattr(sys.modules[__name__], "peak_megabytes", lambda: next(peaks))
    wrong, _ = fuzz(range(3), tmp_path)
    assert len(wrong) == 1 and re.search(r"mutation 1 .*: took 310 MB", wrong[0]), wrong


def test_mutations_are_the_same_everywhere(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = generated_seeds(tmp_path / "a"), generated_seeds(tmp_path / "b")
    cases = [mutate(first, number) for number in range(200)]
    assert cases == [mutate(second, number) for number in range(200)]
    assert len({raw for _, _, raw in cases}) > 180 and {which for which, _, _ in cases} == set(range(len(first)))


def test_a_gap_between_segments_of_the_same_leads_is_read(tmp_path):
    """wfdb has no answer to `~` where the first segment is no layout; found when the seeds were made."""
    (tmp_path / "work").mkdir()
    seed = next(seed for seed in generated_seeds(tmp_path / "work") if seed.path == "several.hea")
    for name, raw in seed.files.items():
        (tmp_path / name).write_bytes(raw)
    record = read_record(tmp_path / "several.hea")
    assert np.isnan(record.signal[:, 40:50]).all() and not np.isnan(record.signal[:, 50:]).any()


def test_a_line_end_within_a_dicom_identifier_does_not_break_the_message(tmp_path):
    """Mutations 668 and 12450 of this table: a UID with a control character stood in the message as it was."""
    for seed in dicom_seeds(random_integers(40, 3)):
        raw = seed.files["a.dcm"].replace(b"1.2.840.10008.5.1.4.1.1.9.1.1", b"1.2.840.10008.5.1.\r.1.1.9.1.1")
        assert raw != seed.files["a.dcm"]
        (tmp_path / "a.dcm").write_bytes(raw)
        result = read_seed(seed, tmp_path)
        assert isinstance(result, ECGRecord) or complaint(result, seed, tmp_path) is None
