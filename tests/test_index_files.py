"""An index on disk: it comes back as it was, or is refused with the reason; no pickle is read."""

import json
import pickle

import numpy as np
import pytest

from datasets_scripts.cqa import index_files
from datasets_scripts.cqa.corpus import Passage, corpus_hash
from datasets_scripts.cqa.index_files import IndexRefused, load_index
from datasets_scripts.cqa.retriever import Retriever

pytest.importorskip("bm25s", reason="needs esi-ecg[cqa]")

PASSAGES = [Passage(f"Lead V{at} shows an R wave of {at} mm.", "Büch", f"C{at}", at, "b.pdf") for at in range(1, 7)]


class Letters:
    """An encoder by the letters of a text."""

    def __init__(self, name="letters", seed=0):
        self.name, self._table = name, np.random.default_rng(seed).normal(size=(128, 5))

    def encode(self, texts, progress=False):
        rows = np.array([sum(self._table[ord(letter) % 128] for letter in text) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    Retriever.build(PASSAGES, Letters()).save(tmp_path / "index")
    return tmp_path / "index"


def test_an_index_comes_back_as_it_was(folder):
    before, after = Retriever.build(PASSAGES, Letters()), Retriever.load(folder, Letters())
    assert after.passages == before.passages and after.corpus_hash == corpus_hash(PASSAGES)
    for query in ("R wave in V3", "V5", "LBBB"):
        for dense in (True, False):
            found, expected = after.search(query, dense=dense), before.search(query, dense=dense)
            assert [hit.passage for hit in found] == [hit.passage for hit in expected]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected])
    assert after.weight("v3") == before.weight("v3")


def test_saving_again_replaces_the_index(folder):
    Retriever.build(PASSAGES[:2]).save(folder)
    again = Retriever.load(folder)
    assert again.passages == tuple(PASSAGES[:2]) and not again.is_dense
    again.save(folder)
    assert Retriever.load(folder).passages == tuple(PASSAGES[:2])


def test_two_indices_of_one_corpus_are_equal_byte_for_byte(tmp_path):
    for name in ("one", "two"):
        Retriever.build(PASSAGES).save(tmp_path / name)
    assert (tmp_path / "one" / "manifest.json").read_text() == (tmp_path / "two" / "manifest.json").read_text()


def test_other_files_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected an empty folder or an index"):
        Retriever.build(PASSAGES).save(tmp_path)


def test_no_index_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an index with manifest.json"):
        Retriever.load(tmp_path)


def test_an_index_of_another_corpus_is_refused(folder):
    assert len(load_index(folder, corpus_hash(PASSAGES)).passages) == 6
    with pytest.raises(IndexRefused, match="expected an index of the corpus"):
        Retriever.load(folder, expected_corpus=corpus_hash(PASSAGES[1:]))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("version", 99, "expected an index of version 1, got 99"),
        ("version", None, "got None"),
        ("vocabulary_hash", "0", "another table of findings"),
        ("corpus_hash", "0" * 64, "not those of the manifest"),
    ],
)
def test_an_index_of_another_version_is_refused(folder, key, value, told):
    manifest = json.loads((folder / "manifest.json").read_text()) | {key: value}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexRefused, match=told):
        load_index(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 1}', "null"])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(IndexRefused):
        load_index(folder)


@pytest.mark.parametrize("name", ["passages.jsonl", "embeddings.npy", "probe.npy", "bm25/data.csc.index.npy"])
def test_a_file_that_is_missing_or_changed_is_refused(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(IndexRefused, match=f"{name} is missing or not as it was written"):
        load_index(folder)
    (folder / name).unlink()
    with pytest.raises(IndexRefused, match=f"{name} is missing"):
        load_index(folder)


def test_an_index_that_was_not_finished_is_none(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_files, "_write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        Retriever.build(PASSAGES).save(folder)
    with pytest.raises(FileNotFoundError):
        Retriever.load(folder)
    monkeypatch.undo()
    Retriever.build(PASSAGES).save(folder)
    assert len(Retriever.load(folder).passages) == 6


def test_a_pickle_is_not_opened(folder):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    np.save(folder / "embeddings.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["embeddings.npy"] = index_files._file_hash(folder / "embeddings.npy")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert pickle.PROTO in (folder / "embeddings.npy").read_bytes()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_index(folder)


def test_another_encoder_under_the_same_name_is_refused(folder):
    retriever = Retriever.load(folder, Letters(seed=1))
    with pytest.raises(IndexRefused, match="expected the one that made the embeddings"):
        retriever.search("V3")
    assert retriever.search("V3", dense=False)[0].passage.page == 3
