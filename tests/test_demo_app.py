"""The demo app: files become a recording or one sentence, words become HTML, and nothing stays behind.

The browser's test (slow) drives the command in headless Chromium, as a user would.
"""

import importlib.util
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_wfdb
import torch
import yaml

from datasets_scripts.records import ECGRecord
from datasets_scripts.synthetic import generate_record
from modeling_esi import ESIConfig, ESIFeatureExtractor, ESIForECGClassification, ESIModel, ESIProcessor
from modeling_esi.demo import page_parts, space, uploads
from modeling_esi.demo.__main__ import main
from modeling_esi.demo.answers import ECGAnswers, part_of
from modeling_esi.demo.archives import FIRST_SEED, Neighbour, SyntheticArchive
from modeling_esi.demo.examples import EXAMPLES, LABELS, example
from modeling_esi.demo.handlers import EACH, ONE, Handlers, Shown, label_choices
from modeling_esi.demo.uploads import file_to_read, forget, read_upload
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.search.building import build_index
from modeling_esi.training.text_from_scratch import small_bert_config, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 4.0
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio (extra demo)")


def save_tiny_model(folder: Path) -> None:
    """A model of a few thousand weights that knows the words of the synthetic reports."""
    torch.manual_seed(0)
    reports = [generate_record(seed, sampling_rate=100).report for seed in range(20)]
    tokenizer = train_tokenizer(reports, vocab_size=150, max_text_length=60)
    decoder = {"hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 3, "head_dim": 10,
               "bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
               "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    config = ESIConfig.from_variant(
        "esi",
        ecg_config={"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 37]},
        text_config=small_bert_config(tokenizer, hidden_size=64, num_layers=1),
        decoder_config=decoder,
        projection_dim=28,
    )
    ESIModel(config).save_pretrained(folder)
    door = ESIFeatureExtractor(sampling_rate=100, duration=SECONDS)
    ESIProcessor(door, tokenizer, max_text_length=60).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "esi-ecg"
    save_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def answers(folder) -> ECGAnswers:
    loaded = EvaluationContext.load(folder, "synthetic", device="cpu", cache_dir=None)
    return ECGAnswers(loaded.model, loaded.processor, SyntheticArchive(loaded.model, loaded.processor, 13), "esi-ecg")


@pytest.fixture(scope="module")
def handlers(answers) -> Handlers:
    return Handlers(answers)


def write_csv(path: Path, seconds: float = 5.0, rate: int = 100) -> Path:
    """Three limb leads of a synthetic heart, without times: the file does not say its rate."""
    signal = generate_record(3, sampling_rate=rate, duration=max(seconds, 5.0)).signal[:3]
    rows = "\n".join(",".join(f"{value:.3f}" for value in row) for row in signal.T)
    path.write_text(f"I,II,III\n{rows}\n")
    return path


def write_dicom(path: Path) -> Path:
    """Three leads of a synthetic heart, and a patient with a name."""
    made = pytest.importorskip("test_dicom_records", reason="needs pydicom (extra formats)")
    signal = generate_record(6, sampling_rate=250, duration=5.0).signal[[0, 1, 6]]
    channels = [made.channel(lead) for lead in ("I", "II", "V1")]
    return made.save(path, made.data_set([made.group((signal * 400).round().astype(int), channels)]))


def uploaded(folder: Path, *paths: Path) -> list[str]:
    """Copies as Gradio leaves them: each in a folder of its own."""
    copies = []
    for number, path in enumerate(paths):
        place = folder / f"uploads-{number}"
        place.mkdir()
        copies.append(shutil.copy(path, place))
    return [str(copy) for copy in copies]


# ----- uploads -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wfdb_pair(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("wfdb")
    integers = (generate_record(5, sampling_rate=250, duration=5.0).signal[[0, 1, 10]].T * 200).round().astype(int)
    header = tiny_wfdb.write_record(place, integers=integers)
    return [header, header.with_suffix(".dat")]


def test_a_pair_in_two_folders_becomes_one_record_and_nothing_stays(handlers, wfdb_pair, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    paths = uploaded(tmp_path, *reversed(wfdb_pair))
    shown, told = handlers.read_files(paths, None, "", "")
    assert shown.record.leads == tiny_wfdb.LEADS and shown.record.sampling_rate == 250
    assert shown.record.signal.shape == (3, 1250) and "rec.dat, rec.hea" in told and "3 leads" in told
    assert not list(scratch.iterdir()) and not list(tmp_path.rglob("uploads-*"))


def test_a_header_that_names_a_file_elsewhere_is_refused(wfdb_pair, tmp_path):
    secret = tmp_path / "secret.dat"
    secret.write_bytes(wfdb_pair[1].read_bytes())
    header = tmp_path / "rec.hea"
    for name in (str(secret), "../secret.dat"):
        header.write_text(wfdb_pair[0].read_text().replace("rec.dat", name))
        with pytest.raises(ValueError, match="rec.hea") as refused:
            read_upload([header])
        assert str(tmp_path) not in str(refused.value).replace(name, "")


def test_a_file_that_is_none_is_one_sentence_without_a_path(handlers, tmp_path):
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(bytes(128) + b"DICM" + b"junk" * 20)
    shown, told = handlers.read_files(uploaded(tmp_path, broken), None, None, None)
    assert shown is None and "broken.dcm" in told and 'role="alert"' in told
    assert "Traceback" not in told and "esi-ecg-upload" not in told and "uploads-0" not in told


def test_what_a_file_does_not_say_can_be_said(handlers, tmp_path):
    path = write_csv(tmp_path / "a.csv")
    shown, told = handlers.read_files(uploaded(tmp_path, path), None, "", "")
    assert shown is None and "sampling" in told
    shown, told = handlers.read_files(uploaded(tmp_path, path), 100, "", "mV")
    assert shown.record.sampling_rate == 100 and "100 Hz" in told


def test_only_one_recording_and_only_a_small_one(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.hea", "d.hea", "other/a.csv")]
    for path in files:
        path.write_text("I,II\n" * 9)
    assert file_to_read([files[0], files[2]]) == "c.hea"
    for chosen in ([], files[:2], files[2:4], [files[0], files[4]]):
        with pytest.raises(ValueError, match="Expected"):
            file_to_read(chosen)
    monkeypatch.setattr(uploads, "MAX_BYTES", 40)
    with pytest.raises(ValueError, match="MB"):
        file_to_read(files[:1])


def test_reading_that_ends_without_a_word_is_told(tmp_path, monkeypatch):
    """A library that takes its process down, or does not come to an end, takes nothing else along."""
    for code in ("import os; os.abort()", "import time; time.sleep(60)"):
        reader = tmp_path / "reader.py"
        reader.write_text(code)
        monkeypatch.setattr(uploads, "_READER", reader)
        with pytest.raises(ValueError, match="a.csv: could not be read in 1 s"):
            read_upload([write_csv(tmp_path / "a.csv")], seconds=1)


def test_files_are_forgotten_with_their_folders(tmp_path):
    (tmp_path / "one").mkdir()
    for name in ("a.hea", "a.dat"):
        (tmp_path / "one" / name).write_text("x")
    forget([tmp_path / "one" / "a.hea"])
    assert (tmp_path / "one" / "a.dat").exists()
    forget([tmp_path / "one" / "a.dat", tmp_path / "one" / "a.hea"])
    assert not (tmp_path / "one").exists()


# ----- answers -------------------------------------------------------------------------------------------------------


def test_part_of_a_recording_keeps_its_integers():
    record = generate_record(2, duration=9.0, sampling_rate=100)
    part = part_of(record, 2.5, 4.0)
    np.testing.assert_array_equal(part.digital, record.digital[:, 250:650])
    np.testing.assert_array_equal(part_of(record, 8, 4.0).signal, record.signal[:, 500:])
    assert part_of(record, 3, 60.0).num_samples == 900
    plain = ECGRecord(np.arange(700, dtype=np.float32)[None], ("I",), 100)
    assert part_of(plain, 1, 2).signal.tolist() == [list(range(100, 300))]


def test_ranks_are_shares_of_the_recordings_to_compare_with(answers):
    record = part_of(example("Atrial fibrillation"), 0, SECONDS)
    found = answers.scores(record, ["low voltage", " atrial fibrillation ", "", "low voltage"])
    assert sorted(result.label for result in found) == ["atrial fibrillation", "low voltage"]
    embeds = answers.archive.sample()
    for result in found:
        tokens = answers._processor(text=[f"{result.label}."])
        with torch.no_grad():
            text = answers._model.get_text_features(**tokens)[0].numpy()
            ecg = answers._model.get_ecg_features(**answers._processor(record))[0].numpy()
        assert result.similarity == pytest.approx(float(ecg @ text), abs=1e-5)
        assert result.share_below == pytest.approx(np.mean(embeds @ text < ecg @ text))
    shares = [result.share_of_all for result in answers.scores(record, LABELS, one_is_true=True)]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)


def test_a_recording_of_the_archive_is_its_own_neighbour(answers):
    record = generate_record(FIRST_SEED + 7, sampling_rate=100, duration=5.0)
    found = answers.nearest(record, 3)
    assert found[0].text == record.report and found[0].similarity == pytest.approx(1, abs=1e-5)
    assert found[0].patient == f"{record.sex}, {record.age:.0f} years"
    assert [near.similarity for near in found] == sorted((near.similarity for near in found), reverse=True)


def test_an_index_stands_where_synthetic_recordings_stood(folder, answers, tmp_path):
    context = EvaluationContext.load(
        folder, "synthetic", split="all", device="cpu", cache_dir=None,
        dataset_options={"num_records": 3, "sampling_rate": 100, "duration": 5.0},
    )  # fmt: skip
    build_index(context, tmp_path / "index", model_name=None)
    beside = ECGAnswers.load(folder, tmp_path / "index")
    assert beside.archive.name == "the 9 recordings of the index" and beside.name == "esi-ecg"
    assert beside.archive.sample().shape == (9, 28)
    near = beside.nearest(part_of(example("Normal ECG"), 0, SECONDS), 4)
    assert len(near) == 4 and all(neighbour.text for neighbour in near)
    with pytest.raises(FileNotFoundError, match="expected an index"):
        ECGAnswers.load(folder, tmp_path)


def test_a_model_that_compares_no_texts_is_refused(answers, tmp_path):
    ESIForECGClassification(answers._model.config).save_pretrained(tmp_path)
    answers._processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a whole ESIModel"):
        ECGAnswers.load(tmp_path)


def test_labels_and_sentences_have_limits(answers):
    record = part_of(example("Normal ECG"), 0, SECONDS)
    for labels in ([], [" "], ["x" * 201], [str(number) for number in range(31)]):
        with pytest.raises(ValueError, match="Labels: expected 1 to 30"):
            answers.scores(record, labels)
    with pytest.raises(ValueError, match="Sentence: expected {}"):
        answers.scores(record, ["x"], "no place")


# ----- what the page says --------------------------------------------------------------------------------------------


def test_every_question_is_answered_in_html(handlers):
    shown, told = handlers.choose_example("Left bundle branch block")
    assert "12 leads" in told and "Left bundle branch block (synthetic)" in told
    assert handlers.page(shown, 0).count('src="data:image/png;base64,') == 1
    each = handlers.scores(shown, 0, "low voltage\nlong QT interval", "{}.", EACH)
    one = handlers.scores(shown, 0, "low voltage\nlong QT interval", "{}.", ONE)
    assert each.count("<tr>") == one.count("<tr>") == 3 and "Rank:" in each and "Share:" in one
    assert handlers.nearest(shown, 0).count("<tr>") == 6
    assert "esi-report" in handlers.report(shown, 0)
    assert "data:image/png" in handlers.attribution(shown, 0, "low voltage", "{}.")


def test_without_a_recording_there_is_nothing_to_say(handlers):
    assert handlers.page(None, 0) == page_parts.EMPTY
    assert handlers.scores(None, 0, "a", "{}", EACH) == handlers.report(None, 0) == handlers.nearest(None, 0) == ""
    assert "Expected a recording" in handlers.attribution(None, 0, "a", "{}")
    assert handlers.choose_example("nothing")[0] is None and handlers.last_start(None) == 0


def test_a_refusal_is_a_sentence_in_its_place(handlers):
    short = Shown(ECGRecord(np.ones((1, 20)), ("II",), 100), "short")
    for told in (handlers.scores(short, 0, "a", "{}", EACH), handlers.report(short, 0), handlers.nearest(short, 0)):
        assert told.startswith('<div class="esi-problem"') and "expected" in told
    shown, _ = handlers.choose_example("Normal ECG")
    assert "Labels: expected" in handlers.scores(shown, 0, None, "{}", EACH)


def test_long_recordings_are_shown_in_parts(handlers):
    shown = Shown(generate_record(1, duration=11.0, sampling_rate=100), "long")
    assert handlers.last_start(shown) == 11.0 - SECONDS
    assert handlers.page(shown, 0) != handlers.page(shown, 7.0)
    assert handlers.nearest(shown, 0) != handlers.nearest(shown, 7.0)


def test_words_from_outside_are_no_html():
    bad = "<script>alert(1)</script>${x}{{y}}"
    record = ECGRecord(np.ones((1, 20)), ("II",), 100, repairs=(bad,))
    pages = [page_parts.problem(bad), page_parts.facts(record, bad, {bad: bad}), page_parts.report(bad),
             page_parts.neighbours([Neighbour(0.5, bad, bad)], bad), page_parts.page(b"", bad),
             page_parts.head(bad, bad)]  # fmt: skip
    for page in pages:
        assert "<script" not in page and "${" not in page and "{{" not in page and "&lt;script" in page


def test_labels_to_choose_from_follow_what_is_typed():
    assert label_choices(" a \n\nb\na") == {"choices": ["a", "b"], "value": "a"}
    assert label_choices(None) == {"choices": [], "value": None}


def test_examples_are_what_they_are_called():
    for name, findings in EXAMPLES.items():
        assert set(findings) <= set(example(name).statements)


# ----- command line and Space ----------------------------------------------------------------------------------------


@needs_gradio
def test_a_space_says_what_it_needs(tmp_path, capsys):
    assert main(["--space", str(tmp_path / "space"), "--model", "someone/esi-ecg"]) == 0
    written = tmp_path / "space"
    assert sorted(path.name for path in written.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    settings = yaml.safe_load((written / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (
        settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and settings["models"] == ["someone/esi-ecg"]
    )
    compile((written / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    assert main(["--space", str(written), "--model", "someone/esi-ecg"]) == 1
    assert main(["--space", str(tmp_path / "other"), "--model", "esi-ecg"]) == 1
    assert "push it first" in capsys.readouterr().err
    assert space._REQUIREMENTS.startswith("esi-ecg[demo")


@needs_gradio
def test_without_a_model_the_command_says_so(tmp_path, capsys):
    assert main(["--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


@needs_gradio
@pytest.mark.slow
def test_the_app_tells_nobody_and_offers_no_interface_to_programs(answers):
    from modeling_esi.demo.app import build_app

    app = build_app(answers)
    assert app.analytics_enabled is False and app.delete_cache == (60, 300)
    assert {function.api_visibility for function in app.fns.values()} == {"private"}
    assert {(function.concurrency_id, function.concurrency_limit) for function in app.fns.values()} == {("model", 1)}
    assert app.get_api_info()["named_endpoints"] == {}


# ----- in a browser --------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EXTERNAL = re.compile(r"^(?!data:|blob:|https?://127\.0\.0\.1[:/])")


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    """The command in a process of its own: its address, and its temporary folder, which is empty at the end."""
    scratch = tmp_path_factory.mktemp("scratch")
    environment = os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-u", "-m", "modeling_esi.demo", "--model", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield _address(process), scratch
    finally:
        process.terminate()
        process.wait(60)
    assert not list(scratch.glob("esi-ecg-*"))


def _address(process: subprocess.Popen) -> str:
    said, ends = b"", time.monotonic() + 300
    while time.monotonic() < ends and process.poll() is None:
        if select.select([process.stdout], [], [], 1)[0]:
            said += os.read(process.stdout.fileno(), 4096)
        if found := re.search(rb"http://127\.0\.0\.1:\d+", said):
            return found[0].decode()
    pytest.fail(f"the demo did not start: {said.decode()[-2000:]}")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs Chromium and playwright: apt-get install chromium; pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def upload(page, *paths: Path) -> None:
    page.set_input_files("#files input[type=file]", [str(path) for path in paths])


@needs_gradio
@pytest.mark.slow
def test_in_a_browser(browser, served, wfdb_pair, tmp_path):
    """A WFDB pair, a DICOM file and a broken one; other labels; attribution; nothing fetched, nothing left."""
    address, scratch = served
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#page .esi-empty")
    page.screenshot(path=tmp_path / "start.png", full_page=True)

    upload(page, *wfdb_pair)
    page.wait_for_selector("#nearest table")
    assert "rec.dat, rec.hea" in page.inner_text("#facts") and "250 Hz" in page.inner_text("#facts")
    assert page.locator("#page img").evaluate("image => image.naturalWidth") > 600
    assert page.locator("#scores tbody tr").count() == len(LABELS)

    page.fill("#labels textarea", "low voltage\n<b>bold</b> ${1 + 1}")
    page.click("#score")
    page.wait_for_function("document.querySelectorAll('#scores tbody tr').length == 2")
    assert "<b>bold</b> ${1 + 1}" in page.inner_text("#scores")
    page.click("text=exactly one is true")
    page.wait_for_function("document.querySelector('#scores').innerText.includes('Share:')")
    page.click("text=What raised a score")
    page.click("#explain")
    page.wait_for_selector("#attribution img")
    page.screenshot(path=tmp_path / "pair.png", full_page=True)

    upload(page, write_dicom(tmp_path / "ecg.dcm"))
    page.wait_for_function("document.querySelector('#facts').innerText.includes('ecg.dcm')")
    page.wait_for_selector("#nearest table")
    assert "3 leads · 250 Hz · 5.0 s · female · 56 years" in page.inner_text("#facts")
    assert "Sommerfeld" not in page.inner_text("body")
    page.screenshot(path=tmp_path / "dicom.png", full_page=True)

    broken = tmp_path / "broken.dcm"
    broken.write_bytes(bytes(128) + b"DICM" + b"junk" * 20)
    upload(page, broken)
    page.wait_for_selector("#facts [role=alert]")
    assert "broken.dcm" in page.inner_text("#facts") and "Traceback" not in page.inner_text("body")
    page.wait_for_selector("#page .esi-empty")
    page.screenshot(path=tmp_path / "broken.png", full_page=True)

    assert not [url for url in asked if EXTERNAL.match(url)]
    assert not errors
    left = [path for path in scratch.rglob("*") if path.is_file() and path.stat().st_size]
    assert not left, left


@needs_gradio
@pytest.mark.slow
def test_on_a_phone(browser, served, tmp_path):
    """Nothing is wider than the screen: the page of the ECG scrolls in its own frame."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(120_000)
    page.goto(served[0])
    page.wait_for_selector("#page .esi-empty")
    page.click("#example input")
    page.click("text=Atrial fibrillation >> visible=true")
    page.wait_for_selector("#nearest table")
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    page.wait_for_function("document.documentElement.scrollWidth <= 390")  # once nothing is in progress any more
