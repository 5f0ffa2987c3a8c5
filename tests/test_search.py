"""Search: exact to the last tie, conditions by hand, an index that is whole or refused, the ECG that finds itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import wfdb
from datasets import Dataset
from tiny_esi import randomise, tiny_esi
from tiny_prepared import write_prepared
from transformers import BertTokenizerFast

from datasets_scripts.records import ECGRecord, record_to_row, row_features
from modeling_esi import ESIFeatureExtractor, ESIProcessor
from modeling_esi.benchmarks import search as benchmark
from modeling_esi.evaluation.context import EvaluationContext
from modeling_esi.evaluation.embedding import embed_ecgs
from modeling_esi.search import building, nearest
from modeling_esi.search.__main__ import main
from modeling_esi.search.building import PROGRESS_FILE, build_index
from modeling_esi.search.conditions import rows_where
from modeling_esi.search.index import ECGIndex
from modeling_esi.search.index_folder import (
    EMBEDDINGS_FILE,
    MANIFEST_FILE,
    METADATA_FILE,
    IndexRefused,
)
from modeling_esi.search.nearest import nearest_rows

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NUM_RECORDS = 11


def record(i: int, **fields) -> ECGRecord:
    digital = np.random.default_rng(i).integers(-500, 500, (12, 220)).astype(np.int16)
    told = {
        "record_id": f"r{i}", "patient_id": f"p{i // 2}", "age": 40.0 + 5 * i if i % 4 else None,
        "sex": ("male", "female", None)[i % 3], "labels": ("NORM",) * (i % 2), "report": f"word{i} and word{i + 1}",
    }  # fmt: skip
    return ECGRecord.from_digital(digital, np.full(12, 200), np.zeros(12), LEADS, 100, **told | fields)


def stored(records) -> Dataset:
    return Dataset.from_list([record_to_row(r) for r in records], features=row_features("int16"))


@pytest.fixture(scope="module")
def processor(tmp_path_factory) -> ESIProcessor:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(94))]))
    return ESIProcessor(
        ESIFeatureExtractor(sampling_rate=100, duration=2.0), BertTokenizerFast(str(path)), max_text_length=37
    )


@pytest.fixture()
def context(processor) -> EvaluationContext:
    rows = {"test": stored([record(i) for i in range(NUM_RECORDS)])}
    return EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows=rows, batch_size=3)


@pytest.fixture()
def index(context, tmp_path) -> ECGIndex:
    build_index(context, tmp_path / "index")
    return ECGIndex.load(tmp_path / "index", (context.model, context.processor))


def unit_rows(rng, *shape) -> np.ndarray:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ----- nearest rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("among", [None, np.arange(3, 2900, 7), np.array([5]), np.array([], dtype=np.int64)])
def test_the_nearest_rows_are_those_of_brute_force(dtype, among):
    rng = np.random.default_rng(0)
    matrix, queries = unit_rows(rng, 3001, 37).astype(dtype), unit_rows(rng, 19, 37)
    matrix[[9, 2500, 17]] = queries[4] / np.linalg.norm(queries[4])  # ties at the top, out of order
    rows = np.arange(len(matrix)) if among is None else among
    found = nearest_rows(matrix, queries, 5, among)
    assert len(found) == 19
    for query, (best, scores) in zip(queries, found, strict=True):
        exact = (matrix[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((rows, -exact))[:5]
        np.testing.assert_array_equal(best, rows[order])
        np.testing.assert_allclose(scores, exact[order], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 7, 5000, 9999])
def test_equal_rows_come_in_their_order_wherever_they_stand(k):
    rng = np.random.default_rng(1)
    row = unit_rows(rng, 1, 768)
    best, scores = nearest_rows(np.repeat(row, 5000, axis=0).astype(np.float16), row, k)[0]
    np.testing.assert_array_equal(best, np.arange(min(k, 5000)))
    assert len(set(scores.tolist())) == 1


def test_rows_that_float32_cannot_tell_apart_are_told_apart():
    """Scores that differ by less than float32's rounding of a sum, in the wrong order of rows."""
    width = 769
    query = np.full((1, width), width**-0.5, dtype=np.float32)
    matrix = np.repeat(query, 3000, axis=0)
    matrix[2000:, ::2] *= -1
    better = [2999, 1234, 77]
    for step, row in enumerate(better):
        matrix[row] = query
        matrix[row, row % width] += np.float32((3 - step) * 1e-7)
    best, scores = nearest_rows(matrix, query, 4)[0]
    assert best.tolist() == [2999, 1234, 77, 0]
    assert (np.diff(scores) < 0).all()


def test_the_float32_pass_is_within_its_bound():
    rng = np.random.default_rng(2)
    matrix, query = np.abs(unit_rows(rng, 2000, 768)), np.abs(unit_rows(rng, 1, 768))  # no cancelling: errors add up
    rounded = nearest._rounded_scores(matrix, query, np.arange(2000))[0]
    exact = matrix.astype(np.float64) @ query[0].astype(np.float64)
    assert np.abs(rounded - exact).max() < nearest._error(query[0])


def test_what_makes_no_sense_is_refused():
    matrix = unit_rows(np.random.default_rng(0), 5, 7)
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        nearest_rows(matrix, matrix, 0)
    with pytest.raises(ValueError, match=r"expected \(queries, 7\).*got \(5, 6\)"):
        nearest_rows(matrix, matrix[:, :6], 1)


# ----- conditions ----------------------------------------------------------------------------------------------------

TABLE = pa.table(
    {
        "record_id": ["a", "b", "c", "d", "e"],
        "age": pa.array([70, 20, None, 65, 40], pa.float32()),
        "sex": ["female", "male", "female", None, "male"],
        "labels": pa.array([["NORM"], ["AFIB", "LBBB"], [], None, ["LBBB"]], pa.list_(pa.string())),
        "text": ["Old infarct", "normal", "", "INFARCTION", "left"],
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("age >= 65", [0, 3]),
        ("65 <= age", [0, 3]),
        ("20 < age <= 65", [3, 4]),
        ("age >= 65 and sex == 'female'", [0]),
        ("age >= 65 or sex == 'male'", [0, 1, 3, 4]),
        ("not age >= 65", [1, 4]),  # an age that is not known is not below 65 either
        ("age is None or age < 30", [1, 2]),
        ("sex is not None and age is not None", [0, 1, 4]),
        ("sex != 'female'", [1, 4]),
        ("sex in ('female',)", [0, 2]),
        ("sex not in ['female', 'other']", [1, 4]),
        ("age in (20, 40.0)", [1, 4]),
        ("'LBBB' in labels", [1, 4]),
        ("'LBBB' in labels and not 'AFIB' in labels", [4]),
        ("'LBBB' not in labels", [0, 2, 3]),
        ("'infarct' in text", [0, 3]),
        ("record_id == 'c'", [2]),
        ("age > -1", [0, 1, 3, 4]),
        ("age > 200", []),
    ],
)
def test_conditions_choose_the_rows_that_meet_them(condition, rows):
    assert rows_where(TABLE, condition).tolist() == rows


def test_labels_are_found_in_a_table_of_several_chunks():
    assert rows_where(pa.concat_tables([TABLE[3:], TABLE[:3]]), "'LBBB' in labels").tolist() == [1, 3]


@pytest.mark.parametrize(
    "condition",
    [
        "", "age", "age >=", "age + 1 > 3", "f(age) > 1", "__import__('os').system('true')", "age.real > 3", "True",
        "labels[0] == 'a'", "age > (lambda: 1)()", "[x for x in age]", "age > True", "age is 3", "'a' is None",
        "1 < 2", "sex in ()", "sex in other", "age == None", "record_id == -'a'", "height > 3", "sex > 3", "age == 'x'",
        "labels == 'NORM'", "3 in labels", "sex in ('female', 3)", "age in ('x',)", "'x' in age", "(" * 900 + ")" * 900,
        "age > 1 and " * 900 + "age > 1", "not " * 450 + "age > 1 )", "f'{age}' == sex", "age == 1e999999j", "a\0b",
    ],
)  # fmt: skip
def test_any_other_condition_is_refused_and_nothing_is_run(condition):
    with pytest.raises(ValueError, match="^where: "):
        rows_where(TABLE, condition)


# ----- building ------------------------------------------------------------------------------------------------------


def test_an_index_holds_the_embeddings_and_what_was_asked_for(context, tmp_path):
    manifest = build_index(context, tmp_path / "index", dtype="float32", with_text=True, with_patient_id=True)
    index = ECGIndex.load(tmp_path / "index", verify=True)
    expected = embed_ecgs(context.model, context.processor.feature_extractor, context.rows(), batch_size=3)
    np.testing.assert_allclose(index.embeddings, expected, atol=1e-6)
    assert len(index) == NUM_RECORDS and manifest["width"] == 28
    assert index.metadata.column_names == ["record_id", "age", "sex", "labels", "patient_id", "text"]
    rows = index.metadata.to_pylist()
    assert rows[4] == {
        "record_id": "r4", "age": None, "sex": "female", "labels": [], "patient_id": "p2", "text": "word4 and word5"
    }  # fmt: skip


def test_names_of_patients_and_texts_stay_out_unless_asked_for(index):
    assert index.metadata.column_names == ["record_id", "age", "sex", "labels"]
    told = b"".join(path.read_bytes() for path in index._folder.iterdir())
    assert b"word4" not in told and b"p2" not in told


def test_a_stored_text_is_the_text_else_the_report_else_the_statements():
    records = [
        record(0, text="chosen", report="said"),
        record(1, report="said"),
        record(2, report="", statements=("one", "two")),
        record(3, report=""),
    ]
    texts = building.metadata_of(stored(records), ["record_id", "age", "text"])["text"]
    assert texts.to_pylist() == ["chosen", "said", "one; two", ""]


def test_a_refused_record_is_named(processor, tmp_path):
    records = [record(0), ECGRecord.from_digital(np.zeros((1, 220), np.int16), [200], [0], ("II",), 100, record_id="x")]
    processor = ESIProcessor(
        ESIFeatureExtractor(sampling_rate=100, duration=2.0, min_duration=2.0), processor.tokenizer, max_text_length=37
    )
    records.append(record(2))
    short = np.zeros((12, 130), np.int16)
    records.append(ECGRecord.from_digital(short, np.full(12, 200), np.zeros(12), LEADS, 100, record_id="short"))
    context = EvaluationContext(tiny_esi(), processor, "tiny", dataset_rows={"test": stored(records)})
    manifest = build_index(context, tmp_path / "index")
    assert "short" in manifest["refused"] and manifest["num_records"] == 4 - len(manifest["refused"])


def test_a_build_goes_on_where_it_was_killed(context, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "RECORDS_PER_BLOCK", 4)
    whole = build_index(context, tmp_path / "whole")
    sizes, real = [], building.embed_ecgs

    def killed(model, door, rows, *args, **kwargs):
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(len(rows))
        return real(model, door, rows, *args, **kwargs)

    monkeypatch.setattr(building, "embed_ecgs", killed)
    with pytest.raises(KeyboardInterrupt):
        build_index(context, tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="run the same build again where one was stopped"):
        ECGIndex.load(tmp_path / "index")
    monkeypatch.setattr(building, "embed_ecgs", lambda *a, **k: sizes.append(len(a[2])) or real(*a, **k))
    assert build_index(context, tmp_path / "index") == whole  # hashes of the files and all
    assert sizes == [4, 4, 3]
    assert build_index(context, tmp_path / "index") == whole and len(sizes) == 3  # finished: nothing is done again
    assert not (tmp_path / "index" / PROGRESS_FILE).exists()


def test_a_build_goes_on_only_with_the_same_model_records_and_settings(context, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "RECORDS_PER_BLOCK", 4)
    real = pytest.MonkeyPatch()
    real.setattr(building, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_index(context, tmp_path / "index")
    real.undo()
    with pytest.raises(ValueError, match="dtype: float16 there, float32 now"):
        build_index(context, tmp_path / "index", dtype="float32")
    other = {"test": stored([record(i + 1) for i in range(NUM_RECORDS)])}
    with pytest.raises(ValueError, match="begun with other settings .dataset"):
        build_index(EvaluationContext(context.model, context.processor, "tiny", dataset_rows=other), tmp_path / "index")
    with pytest.raises(ValueError, match="identity"):
        model = randomise(tiny_esi(), seed=5)
        build_index(
            EvaluationContext(model, context.processor, "tiny", dataset_rows=context.dataset_rows), tmp_path / "index"
        )
    build_index(context, tmp_path / "index")
    with pytest.raises(ValueError, match="begun with other settings .columns"):
        build_index(context, tmp_path / "index", with_text=True)


def test_other_files_are_never_written_over(context, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        build_index(context, tmp_path)
    with pytest.raises(ValueError, match="dtype: expected one of float16, float32, got 'int8'"):
        build_index(context, tmp_path / "index", dtype="int8")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["precious.txt"]


# ----- asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_ecg_finds_itself_first(context, tmp_path, dtype):
    build_index(context, tmp_path / "index", dtype=dtype)
    index = ECGIndex.load(tmp_path / "index", (context.model, context.processor))
    for i in range(NUM_RECORDS):
        first, *_ = hits = index.query(ecg=record(i), k=3)
        assert first.record_id == f"r{i}" and first.row == i and first.score == pytest.approx(1, abs=1e-3)
        assert len(hits) == 3 and hits[0].score >= hits[1].score >= hits[2].score


def test_a_sentence_finds_what_the_models_own_numbers_say(index, context):
    hits = index.query("word7 and word8", k=NUM_RECORDS + 5)
    texts = context.text_embeds(["word7 and word8"])
    expected = context.ecg_embeds() @ texts[0]
    assert len(hits) == NUM_RECORDS
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(expected)[::-1], atol=2e-3)
    assert {hit.record_id for hit in hits} == {f"r{i}" for i in range(NUM_RECORDS)}
    assert hits[0].metadata.keys() == {"age", "sex", "labels"}


def test_a_condition_is_met_by_all_hits_and_keeps_the_order(index):
    every = index.query("word3", k=NUM_RECORDS)
    some = index.query("word3", k=NUM_RECORDS, where="age >= 60 and 'NORM' in labels")
    meets = [hit for hit in every if (hit.metadata["age"] or 0) >= 60 and "NORM" in hit.metadata["labels"]]
    assert some == meets and 0 < len(some) < NUM_RECORDS
    assert index.query("word3", where="age > 140") == []


def test_many_queries_are_answered_as_one_by_one(index):
    texts = [f"word{i}" for i in range(21)]
    embeds = index.embed_texts(texts)
    every = index.nearest(embeds, k=2)
    assert every == [index.nearest(embeds[i : i + 1], k=2)[0] for i in range(len(texts))]
    assert [[hit.row for hit in hits] for hits in every] == [[h.row for h in index.query(t, k=2)] for t in texts]


def test_queries_that_make_no_sense_are_refused(index):
    with pytest.raises(ValueError, match="either text or ecg, got none"):
        index.query()
    with pytest.raises(ValueError, match="either text or ecg, got both"):
        index.query("word1", record(1))
    with pytest.raises(ValueError, match="not finite|zero"):
        index.nearest(np.zeros((1, 28)))
    with pytest.raises(ValueError, match="FAISS knows no conditions"):
        index.query("word1", where="age > 3", approximate=True)
    with pytest.raises(ValueError, match="was built without FAISS"):
        index.query("word1", approximate=True)


def test_another_model_or_door_is_refused(index, context, processor):
    other = randomise(tiny_esi(), seed=3).eval()
    with pytest.raises(IndexRefused, match="expected the model that built it"):
        ECGIndex.load(index._folder, (other, processor)).query("word1")
    door = ESIFeatureExtractor(sampling_rate=100, duration=2.0, fixed_scale_mv=0.5)
    strange = ESIProcessor(door, processor.tokenizer, max_text_length=37)
    with pytest.raises(IndexRefused, match="expected the feature extractor that built it"):
        ECGIndex.load(index._folder, (context.model, strange)).query(ecg=record(1))
    with pytest.raises(ValueError, match="pass model="):
        ECGIndex.load(index._folder).query("word1")


# ----- broken indexes ------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "breaks", "message"),
    [
        (EMBEDDINGS_FILE, cut, "expected .* bytes, got"),
        (EMBEDDINGS_FILE, flip, "not as it was written"),
        (EMBEDDINGS_FILE, Path.unlink, "expected this file in the index, got none"),
        (METADATA_FILE, flip, "not as it was written"),
        (METADATA_FILE, Path.unlink, "expected this file in the index, got none"),
        (MANIFEST_FILE, cut, "expected JSON"),
        (MANIFEST_FILE, lambda path: path.write_text("[]"), "expected an index of version 1, got None"),
        (MANIFEST_FILE, lambda path: path.write_text('{"version": 1}'), "got none of"),
    ],
)
def test_a_broken_index_is_refused(index, name, breaks, message):
    breaks(index._folder / name)
    with pytest.raises(IndexRefused, match=message):
        ECGIndex.load(index._folder, verify=True)


@pytest.mark.parametrize("change", [{"num_records": 10}, {"width": 27}, {"dtype": "float32"}])
def test_a_manifest_of_other_numbers_is_refused(index, change):
    path = index._folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IndexRefused, match="expected"):
        ECGIndex.load(index._folder)


def test_no_pickle_is_read(index):
    path, told = index._folder / EMBEDDINGS_FILE, index.manifest
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    told["files"][EMBEDDINGS_FILE]["size"] = path.stat().st_size
    (index._folder / MANIFEST_FILE).write_text(json.dumps(told))
    with pytest.raises(IndexRefused, match="NumPy file of numbers"):
        ECGIndex.load(index._folder)


# ----- FAISS ---------------------------------------------------------------------------------------------------------


def test_without_faiss_its_absence_is_said(context, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        build_index(context, tmp_path / "index", faiss="Flat")
    assert not (tmp_path / "index").exists()


def test_faiss_is_added_to_a_finished_index_and_finds_the_same(context, tmp_path):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    first = build_index(context, tmp_path / "index")
    manifest = build_index(context, tmp_path / "index", faiss="Flat")
    assert manifest["faiss"] == "Flat" and manifest["files"].items() > first["files"].items()
    index = ECGIndex.load(tmp_path / "index", (context.model, context.processor))
    assert index.query("word5", k=4, approximate=True) == index.query("word5", k=4)
    with pytest.raises(ValueError, match="factory string such as 'HNSW32', got 'Fancy'"):
        build_index(context, tmp_path / "index", faiss="Fancy")


# ----- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture()
def folders(context, tmp_path, monkeypatch) -> Path:
    """A saved model, a prepared data set, and no network: whoever asks for a connection fails the test."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was asked for"))
    context.model.save_pretrained(tmp_path / "model")
    context.processor.save_pretrained(tmp_path / "model")
    shards = {"train-00000": [record(i) for i in range(5)], "test-00000": [record(i) for i in range(5, NUM_RECORDS)]}
    write_prepared(tmp_path / "data", shards)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_line_builds_and_answers(folders, capsys):
    build = ["build", "--model", "model", "--dataset", "data", "--output", "index", "--quiet", "--with_patient_id"]
    assert main([*build, "--device", "cpu"]) == 0
    assert "11 recordings x 28 float16" in capsys.readouterr().out
    assert json.loads((folders / "index" / MANIFEST_FILE).read_text())["model"] == "../model/"
    like = record(9)
    wfdb.wrsamp(
        "like", 100, ["mV"] * 12, list(LEADS), d_signal=like.digital.T.astype(np.int64), fmt=["16"] * 12,
        adc_gain=[200] * 12, baseline=[0] * 12,
    )  # fmt: skip
    asked = ["word1", "word2", "--ecg", "like.hea", "--top", "2", "--where", "sex == 'male'", "--json"]
    assert main(["query", "--index", "index", *asked]) == 0
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert [answer["query"] for answer in (first, second, third)] == ["word1", "word2", "like.hea"]
    assert [hit["sex"] for hit in first["hits"]] == ["male", "male"] and "patient_id" in first["hits"][0]
    assert third["hits"][0]["record_id"] == "r9" and third["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert main(["query", "--index", "index", "word1", "--where", "age > 140"]) == 0
    assert "no recording meets the condition" in capsys.readouterr().out
    folders.joinpath("model").rename(folders / "elsewhere")
    assert main(["query", "--index", "index", "word1"]) == 1
    assert "expected the model that built the index, got none: pass model=" in capsys.readouterr().err
    assert main(["query", "--index", "index", "word1", "--model", "elsewhere"]) == 0
    assert "  1  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "--index", "nowhere", "word1"], "expected an index"),
        (["query", "--index", "nowhere"], "expected a sentence or --ecg FILE, got neither"),
    ],
)
def test_the_command_line_says_in_a_sentence_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_process_loses_one_block(folders, context):
    code = (
        "import os, signal, sys\nfrom modeling_esi.search import building, __main__\n"
        "building.RECORDS_PER_BLOCK, real, calls = 3, building.embed_ecgs, []\n"
        "def embed(*a, **k):\n"
        "    calls.append(a)\n"
        "    return real(*a, **k) if len(calls) < 3 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "building.embed_ecgs = embed\n"
        "__main__.main(sys.argv[1:])\n"
    )
    build = ["build", "--model", "model", "--dataset", "data", "--output", "index", "--quiet", "--device", "cpu"]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code, *build], env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == -signal.SIGKILL
    assert json.loads((folders / "index" / PROGRESS_FILE).read_text())["num_done"] == 6
    assert main(["query", "--index", "index", "word1"]) == 1
    assert main(build) == 0
    expected = context.ecg_embeds().astype(np.float16)
    np.testing.assert_allclose(ECGIndex.load("index", verify=True).embeddings, expected, atol=1e-3)


# ----- the benchmark -------------------------------------------------------------------------------------------------


def test_the_benchmark_searches_a_real_index(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "WIDTH", 13)
    monkeypatch.setattr(benchmark, "measured", lambda module, function, *args: getattr(benchmark, function)(*args))
    lines = list(benchmark.run(123, str(tmp_path)))
    assert lines[0].startswith("search, 123 records x 13, the 10 nearest, one thread")
    assert [line[:36].strip() for line in lines[2:]] == [
        "open the index", "first search", "one question", "one question, with a condition", "16 questions",
        "MB on disk",
    ]  # fmt: skip
    index = ECGIndex.load(tmp_path / "float16", verify=True)
    assert len(index) == 123 and all(len(hits) == 10 for hits in index.nearest(np.eye(2, 13), where=benchmark.WHERE))
