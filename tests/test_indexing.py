"""`index`: the shipped base and a folder of books in one index on disk."""

import pytest
from tiny_books import words

from datasets_scripts.cqa.corpus import knowledge_passages
from datasets_scripts.cqa.indexing import build_index
from datasets_scripts.cqa.retriever import Retriever

pytest.importorskip("bm25s", reason="needs esi-ecg[cqa]")


def test_books_stand_beside_the_shipped_base(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.md").write_text(f"# Zebra rhythm\n\n{words(120, 'zebra')}")
    (tmp_path / "books" / "b.txt").write_bytes(bytes(9))
    report = build_index(tmp_path / "books", tmp_path / "index")
    assert report.num_passages == report.num_shipped + 1 == len(knowledge_passages()) + 1
    first, second, third = report.summary()
    assert first.endswith(f"indexed by BM25; {report.num_shipped} of them from the shipped base")
    assert second == "1 passages from 1 of 2 files" and third.startswith("b.txt: expected text")
    retriever = Retriever.load(tmp_path / "index", expected_corpus=report.corpus_hash)
    assert retriever.search("zebra")[0].passage.source == "a.md"


def test_without_books_the_index_is_of_the_shipped_base(tmp_path):
    report = build_index(None, tmp_path / "index")
    assert report.num_passages == report.num_shipped and len(report.summary()) == 1


def test_a_folder_without_books_writes_no_index(tmp_path):
    (tmp_path / "books").mkdir()
    with pytest.raises(ValueError, match="expected at least one readable file"):
        build_index(tmp_path / "books", tmp_path / "index")
    assert not (tmp_path / "index").exists()
