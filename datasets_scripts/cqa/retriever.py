"""Finds the passages of a corpus that a question or a finding is about: BM25 and dense embeddings, fused.

- BM25 (https://doi.org/10.1561/1500000019) over the terms of `abbreviations.py`, so that "LBBB" finds "left bundle
  branch block". The library is bm25s (https://arxiv.org/abs/2407.03618): 76 kB that need NumPy alone, released often,
  scores sparse and ahead of time, loads `.npy` without pickle. rank-bm25, with its last release in 2022, scores every
  passage in Python for each question and saves through pickle only; LlamaIndex, as the authors used, brings dozens of
  packages for what are two files here.
- Dense: any text encoder (`dense.py`), one matrix product in NumPy. 100,000 passages of width 384 are 150 MB and some
  20 ms a question, so that an approximate index (FAISS) would cost a package and give nothing.
- Fusion by reciprocal rank (https://doi.org/10.1145/1571941.1572114): needs no common scale of the two scores.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets_scripts.cqa.abbreviations import FINDING, findings_asked, spelled_out, terms_of
from datasets_scripts.cqa.dense import Encoder, TextEncoder
from datasets_scripts.cqa.findings import all_findings, find_finding
from datasets_scripts.cqa.index_files import IndexRefused, StoredIndex, bm25_class, load_index, save_index
from datasets_scripts.cqa.passages import Passage, corpus_hash
from datasets_scripts.cqa.statements import NORMAL

FUSION_CONSTANT = 60  # as in the paper on the fusion
CANDIDATES = 100  # of each ranking that are fused
LENGTH_NORM = 0.4  # BM25's b: passages are cut to about one length, so that shortness says little
TITLE_COUNT, OWN_FINDING_COUNT = 2, 4  # how often the terms of the title and of the page's finding count in a passage
# how often a finding counts in a query: one that is all the query says, one among other words, and a mere sign (ST
# elevation), which rather describes what is asked for
ONLY_COUNT, ASKED_COUNT, SIGN_COUNT = 4, 2, 1
SIGN_GROUPS = frozenset({"st-t", "morphology", "axis"})
FROM_ONE_PAGE = 2  # hits of one shipped page, where the query names no diagnosis and many pages may be meant
PROBE_TEXT = "The PR interval is longer than 200 ms."
SAME_ENCODER = 0.99  # cosine of the probe, then and now; rounding and other processors stay far above
# words of questions that say nothing about what is asked for; "a" and "i" are a wave's letter and a lead
STOP_WORDS = frozenset(
    "an the of in on at to for from by with and or is are was were be been do does did has have had it its this that"
    " these those there what which who how when where why can could would should may might i'm me my you your we our"
    " must if as than then so not no look like see seen mean tell about".split()
)
_UNTELLING = frozenset({"a", "ecg"})  # beside a finding these ask for nothing more


@dataclass(frozen=True)
class Hit:
    """A passage that was found: `score` is that of BM25, or the sum of reciprocal ranks where two rankings are fused.

    Scores have no common scale over searches. They order the hits of one, save that those which follow many of the same
    shipped page stand behind the others.
    """

    passage: Passage
    score: float


class Retriever:
    """An index of passages; made by `build` or `load`.

    >>> passages = [Passage("QRS of 120 ms or more.", "Bundle branch block"), Passage("No P wave.", "AFib")]
    >>> Retriever.build(passages).search("atrial fibrillation", k=1)[0].passage.title
    'AFib'
    """

    def __init__(self, index: StoredIndex, encoder: Encoder | None = None) -> None:
        """`index` as stored; without `encoder`, that of the index is loaded when it is first asked for."""
        self._index = index
        self._encoder = encoder
        self._known = encoder is not None  # that it is the encoder of the index

    @classmethod
    def build(
        cls,
        passages: Sequence[Passage],
        encoder: Encoder | str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Retriever:
        """Indexes passages; `encoder` is a name on the Hub, a folder or an object, None for BM25 alone.

        Raises ValueError where there is no passage, ImportError where bm25s is not installed.
        """
        if not passages:
            raise ValueError("passages: expected at least one, got none; read a corpus first")
        index = StoredIndex(tuple(passages), _bm25(passages, progress))
        if encoder is None:
            return cls(index)
        encoder = TextEncoder(os.fspath(encoder)) if isinstance(encoder, str | os.PathLike) else encoder
        embeddings = encoder.encode([_dense_text(passage) for passage in passages], progress=progress)
        probe = encoder.encode([PROBE_TEXT])[0]
        index = replace(index, embeddings=embeddings.astype(np.float16), probe=probe, encoder=encoder.name)
        return cls(index, encoder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        encoder: Encoder | str | None = None,
        expected_corpus: str | None = None,
    ) -> Retriever:
        """The index of a folder; `encoder` where that of the index now has another name.

        Raises FileNotFoundError or `IndexRefused` as `load_index` does.
        """
        index = load_index(folder, expected_corpus)
        retriever = cls(replace(index, encoder=encoder) if isinstance(encoder, str) else index)
        retriever._encoder = None if isinstance(encoder, str) else encoder
        return retriever

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the index. Raises ValueError for a folder that holds other files."""
        save_index(self._index, folder)

    @property
    def passages(self) -> tuple[Passage, ...]:
        """All passages, in the order of the corpus."""
        return self._index.passages

    @property
    def corpus_hash(self) -> str:
        """What caches and indices of this corpus are valid for."""
        return corpus_hash(self._index.passages)

    @property
    def is_dense(self) -> bool:
        """Whether the index has embeddings."""
        return self._index.embeddings is not None

    def search(self, query: str, k: int = 5, dense: bool | None = None) -> list[Hit]:
        """The `k` best passages, best first; fewer, or none, where the corpus has no term of the query.

        `dense=False` asks BM25 alone, also of an index with embeddings; by default all that the index has.

        Raises ValueError for k below 1, or `dense=True` without embeddings; `IndexRefused` where the encoder is not
        the one that made the embeddings.
        """
        if k < 1:
            raise ValueError(f"k: expected at least 1 passage, got {k}")
        if dense and not self.is_dense:
            raise ValueError("dense: expected an index with embeddings, got BM25 alone; build it with an encoder")
        asked = read_query(query)
        scores = self._bm25_scores(asked.terms)
        ranked = _best(scores, max(k, CANDIDATES))
        found = [(row, float(scores[row])) for row in ranked]
        if self.is_dense and dense is not False:
            found = reciprocal_rank_fusion([ranked, _best(self._similarities(query), max(k, CANDIDATES))])
        hits = [Hit(self.passages[row], score) for row, score in found]
        return _spread(hits, asked.most_from_one_page(k))[:k]

    def weight(self, term: str) -> float:
        """How much a term tells, its inverse document frequency; highest for one that the corpus does not have."""
        column, indptr = self._index.bm25.vocab_dict.get(term), self._index.bm25.scores["indptr"]
        count = int(indptr[column + 1] - indptr[column]) if column is not None and column + 1 < len(indptr) else 0
        return math.log1p((len(self.passages) - count + 0.5) / (count + 0.5))

    def _bm25_scores(self, terms: Sequence[str]) -> np.ndarray:
        known = [term for term in terms if term in self._index.bm25.vocab_dict]
        if not known:
            return np.zeros(len(self.passages), dtype=np.float32)
        return self._index.bm25.get_scores(known)

    def _similarities(self, query: str) -> np.ndarray:
        """Cosines of the query with all passages."""
        embedding = self._the_encoder().encode([_dense_query(query)])[0]
        return self._index.embeddings.astype(np.float32) @ embedding.astype(np.float32)

    def _the_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = TextEncoder(self._index.encoder)
        if not self._known:
            probe, now = self._index.probe, self._encoder.encode([PROBE_TEXT])[0]
            if probe.shape != now.shape or float(probe @ now) < SAME_ENCODER:
                raise IndexRefused(
                    f"encoder: expected the one that made the embeddings ({self._index.encoder}), got another under "
                    f"this name; give it as encoder=, search with dense=False, or build the index anew"
                )
            self._known = True
        return self._encoder


@dataclass(frozen=True)
class Query:
    """A question as it is searched for: `words` but stop words, `findings`, `other` terms.

    `only_findings`: nothing is asked but these findings ("LBBB", "What is a PVC?").
    """

    words: tuple[str, ...]
    findings: tuple[str, ...]
    other: tuple[str, ...]
    only_findings: bool

    @property
    def terms(self) -> list[str]:
        """The terms to score; a finding asked for alone brings the words of its full name."""
        marked = [f"{FINDING}{name}" for name in self.findings for _ in range(self._count(name))]
        names = {word: None for name in self.findings for word in terms_of(name).words if word not in self.words}
        return [*self.words, *(names if self.only_findings else ()), *marked, *self.other]

    def _count(self, finding: str) -> int:
        if self.only_findings:
            return ONLY_COUNT
        return SIGN_COUNT if is_sign(finding) else ASKED_COUNT

    def most_from_one_page(self, k: int) -> int:
        """How many of `k` hits may be sections of one shipped page: each finding that is asked for gets its share."""
        named = self.only_findings or any(not is_sign(finding) for finding in self.findings)
        return math.ceil(k / len(self.findings)) if named and self.findings else FROM_ONE_PAGE


def is_sign(finding: str) -> bool:
    """Whether a finding is a sign of many diagnoses (ST elevation), not one itself."""
    return all_findings()[finding].group in SIGN_GROUPS


def read_query(text: str) -> Query:
    """A question, a statement or a name as it is searched for.

    >>> read_query("What is LBBB?").terms[:3]
    ['lbbb', 'left', 'bundle']
    """
    exact = find_finding(text)  # also a code that is no word: "AMI", "ISC_"
    findings = (exact.name,) if exact else findings_asked(text)
    terms = terms_of(text)
    words = tuple(word for word in terms.words if word not in STOP_WORDS)
    if not findings and "normal" in words:  # "the normal PR interval"
        findings = (NORMAL,)
    named = terms.named.union(*(terms_of(name).words for name in findings))
    only = bool(exact) or bool(findings) and named.issuperset({*words} - _UNTELLING)
    return Query(words, findings, terms.other, only)


def passage_terms(passage: Passage) -> list[str]:
    """The terms of a passage: those of its title and of the finding whose page it is count more than once."""
    own = [f"{FINDING}{passage.finding}"] * OWN_FINDING_COUNT if passage.finding else []
    title, chapter = _heading_terms(passage.title), _heading_terms(passage.chapter)
    return [*own, *title * TITLE_COUNT, *chapter, *terms_of(passage.text).all]


@lru_cache(maxsize=4096)
def _heading_terms(heading: str) -> tuple[str, ...]:
    """The terms of a title or chapter, which many passages share."""
    return tuple(terms_of(heading).all)


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Rows of several rankings, best first, with the sum of `1 / (60 + rank)`; ties go to the first ranking.

    >>> [row for row, _ in reciprocal_rank_fusion([[7, 8], [8, 9]])]
    [8, 7, 9]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (FUSION_CONSTANT + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])


def _spread(hits: Sequence[Hit], most: int) -> list[Hit]:
    """The hits in their order, but behind the others those that follow `most` of one shipped page."""
    counts: Counter[str] = Counter()
    first, later = [], []
    for hit in hits:
        counts[hit.passage.finding] += 1
        (later if hit.passage.finding and counts[hit.passage.finding] > most else first).append(hit)
    return [*first, *later]


def _best(scores: np.ndarray, count: int) -> list[int]:
    """The rows of the highest scores above zero, highest first; equal scores in the order of the corpus."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [int(row) for row in order if scores[row] > 0]


def _bm25(passages: Sequence[Passage], progress: bool) -> Any:
    vocabulary: dict[str, int] = {}
    rows = []
    for passage in tqdm(passages, desc="indexing", unit="passage", disable=not progress):
        rows.append([vocabulary.setdefault(term, len(vocabulary)) for term in passage_terms(passage)])
    bm25 = bm25_class()(b=LENGTH_NORM, backend="numpy")
    bm25.index((rows, vocabulary), show_progress=False)
    return bm25


def _dense_text(passage: Passage) -> str:
    return ". ".join(filter(None, (passage.title, passage.chapter, passage.text)))


def _dense_query(query: str) -> str:
    """The query with its findings by their full names, which encoders of plain English know better."""
    return " ".join([spelled_out(query), *(f"({name})" for name in read_query(query).findings)])
