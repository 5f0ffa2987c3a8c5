"""Describes statements: each distinct one once, with sources, checked sentence by sentence, by a model or without one.

A statement about the recording, the interpretation or the whole gets no waveform. The others are described from the
shipped pages and the user's books: by a chat model, whose answers are kept as they come (`answer_cache.py`), and
replaced by the extractive description where they are cut short or not supported (if `attempts` allows it, after asking
again with the reason); or, without a model, by extraction alone. Whatever happens to a statement is in the result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from os import PathLike

from tqdm.auto import tqdm

from datasets_scripts.cqa.answer_cache import Answer, AnswerCache, cache_key
from datasets_scripts.cqa.generator import Generated, Generator, Message, RefusedRequest, TemporaryFailure
from datasets_scripts.cqa.grounds import Grounds
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.prompts import MOST_WORDS, corrected, describe_messages, is_echo, plain_answer, prompt_hash
from datasets_scripts.cqa.provenance import (
    DESCRIBED,
    EXTRACTIVE,
    FAILED,
    Described,
    SaidSentence,
    finding_values,
    source_values,
    without_waveform,
)
from datasets_scripts.cqa.retries import Backoff, call_patiently
from datasets_scripts.cqa.statements import ParsedStatement, parse_statement
from datasets_scripts.cqa.support import Support, check_description
from datasets_scripts.report_text import normalise_statement

FALLBACKS = ("extractive", "none")
FAILURES_IN_A_ROW = 20  # statements without any answer, after which a server counts as gone


class GeneratorUnavailable(ConnectionError):
    """The model cannot be asked any more; what it has answered is kept."""


@dataclass(frozen=True)
class Options:
    """How statements are described.

    Attributes:
        num_workers: requests at once.
        attempts: answers asked for, for a statement whose first ones cannot be used; 1: none is asked twice.
        min_support: the least support, from 0 to 1, with which an answer is used.
        drop_flagged: leave out sentences that the checker flags.
        fallback: what a statement gets without a usable answer: "extractive", or "none".
        backoff: how patiently a server that is busy is asked again.
    """

    num_workers: int = 8
    attempts: int = 1
    min_support: float = 0.5
    drop_flagged: bool = False
    fallback: str = "extractive"
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        for name in ("num_workers", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.min_support <= 1:
            raise ValueError(f"min_support: expected a number from 0 to 1, got {self.min_support}")
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback: expected one of {', '.join(FALLBACKS)}, got {self.fallback!r}")


def distinct_statements(statements: Iterable[str]) -> list[str]:
    """Statements that differ in more than case, spaces and a final full stop, each as it was first written.

    >>> distinct_statements(["Sinus rhythm", "SINUS RHYTHM.", "", "Normal ECG"])
    ['Sinus rhythm', 'Normal ECG']
    """
    first: dict[str, str] = {}
    for statement in statements:
        if key := normalise_statement(statement):
            first.setdefault(key, statement.strip())
    return list(first.values())


def describe_statements(
    statements: Iterable[str],
    generator: Generator | None = None,
    grounds: Grounds | None = None,
    cache_path: str | PathLike[str] | None = None,
    options: Options | None = None,
    progress: bool = False,
) -> list[Described]:
    """What becomes of each distinct statement, in their order.

    Args:
        statements: any texts; those that are equal but for case, spaces and a full stop count once.
        generator: a chat model, or None: extraction alone. Whether it may be sent anything is for the caller to check
            (`generator.check_may_send`).
        grounds: what descriptions rest on; the shipped base by default.
        cache_path: where answers of the model are kept; needed with a generator.
        options: see `Options`.
        progress: show a bar.

    Raises:
        ValueError: for a generator without cache, or a cache that another run has.
        GeneratorUnavailable: where the server refuses every request, or does not answer. The same call goes on from
            there.
    """
    grounds, options = grounds or Grounds(), options or Options()
    parsed = [parse_statement(statement) for statement in distinct_statements(statements)]
    if generator is None:
        shown = tqdm(parsed, unit=" statements", disable=not progress)
        return [_without_model(statement, grounds, options) for statement in shown]
    if cache_path is None:
        raise ValueError("cache_path: expected a file where answers are kept, got None")
    with AnswerCache(cache_path) as cache:
        return _with_model(parsed, _Asking(generator, grounds, cache, options), progress)


def _without_model(parsed: ParsedStatement, grounds: Grounds, options: Options) -> Described:
    return _extracted(parsed, grounds, options) if parsed.needs_waveform else without_waveform(parsed)


def _extracted(parsed: ParsedStatement, grounds: Grounds, options: Options) -> Described:
    """The description from the pages, checked like any other."""
    sentences = grounds.extracted(parsed)
    support = check_description(" ".join(s.text for s in sentences), parsed.findings, grounds.passages(parsed))
    taken = {sentence.text: grounds.passage_of(sentence) for sentence in sentences}
    return _described(parsed, support, grounds.passages(parsed), options, EXTRACTIVE, taken)


def _described(
    parsed: ParsedStatement,
    support: Support,
    passages: Iterable[Passage],
    options: Options,
    generator: str,
    taken: Mapping[str, Passage | None] | None = None,
) -> Described:
    """A checked description with its sources; `taken`: the passages that its sentences are known to come from."""
    taken, by_key = taken or {}, {passage.key: passage for passage in passages}
    sources: dict[str, Passage] = {}
    sentences: list[SaidSentence] = []
    for said in support.sentences:
        passage = taken[said.text] if said.text in taken else by_key.get(said.passage_key)
        if said.text in taken and passage is None:  # the statement's own words: no page can be against them
            sentences.append(SaidSentence(said.text, 1.0, ""))
            continue
        if passage is not None and not (options.drop_flagged and said.problems):
            sources[passage.key] = passage
        sentences.append(SaidSentence(said.text, said.support, passage.key if passage else "", said.problems))
    kept = [said for said in sentences if not (options.drop_flagged and said.problems)]
    if taken and not kept:
        kept = sentences  # they are the pages' own
    return Described(
        parsed.text,
        DESCRIBED,
        parsed.kind,
        description=" ".join(said.text for said in kept),
        findings=tuple(finding_values(finding) for finding in parsed.findings),
        not_understood=parsed.not_understood,
        sentences=tuple(sentences),
        sources={key: source_values(passage) for key, passage in sources.items()},
        support=round(support.score, 3),
        generator=generator,
    )


# ----- with a model --------------------------------------------------------------------------------------------------


def _with_model(parsed: list[ParsedStatement], asking: _Asking, progress: bool) -> list[Described]:
    """Statements in parallel; the results in their order. What fails for all ends the work."""
    results: dict[int, Described] = {}
    running: dict[Future[Described], int] = {}
    jobs = _jobs(parsed, asking, results)
    with tqdm(total=len(parsed), unit=" statements", disable=not progress) as bar:
        with ThreadPoolExecutor(asking.options.num_workers) as pool:
            try:
                more = True
                while more or running:
                    while more and len(running) < 2 * asking.options.num_workers:
                        number, job = next(jobs, (-1, None))
                        more = job is not None
                        if job is not None:
                            running[pool.submit(asking.ask, job)] = number
                    finished, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), None)
                    for future in finished:
                        results[running.pop(future)] = future.result()
                    bar.update(len(results) - bar.n)
            except BaseException:
                asking.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [results[number] for number in range(len(parsed))]


@dataclass(frozen=True)
class _Job:
    """A statement that a model describes, with all that it needs for it."""

    parsed: ParsedStatement
    messages: list[Message]
    passages: list[Passage]


def _jobs(parsed: list[ParsedStatement], asking: _Asking, results: dict[int, Described]) -> Iterator[tuple[int, _Job]]:
    """The statements for the model; what becomes of the others goes into `results`. In one thread: it searches."""
    for number, statement in enumerate(parsed):
        if not statement.needs_waveform:
            results[number] = without_waveform(statement)
            continue
        grounds = asking.grounds
        told = grounds.headlines(statement)
        messages = describe_messages(statement.text, told, grounds.prompt_passages(statement))
        yield number, _Job(statement, messages, grounds.passages(statement))


class _Asking:
    """Asks the model about one statement at a time, from many threads."""

    def __init__(self, generator: Generator, grounds: Grounds, cache: AnswerCache, options: Options) -> None:
        self.generator, self.grounds, self.cache, self.options = generator, grounds, cache, options
        self.stop = threading.Event()  # ends waiting threads, too
        self._failures, self._lock = 0, threading.Lock()
        self._prompt_hash = prompt_hash()

    def ask(self, job: _Job) -> Described:
        """What becomes of a statement. Raises GeneratorUnavailable."""
        key = cache_key(
            statement=normalise_statement(job.parsed.text),
            model=self.generator.name,
            prompt=self._prompt_hash,
            corpus=self.grounds.corpus_hash,
        )
        messages, spent, problem = job.messages, [], ""
        for attempt in range(self.options.attempts):
            try:
                generated = self._answer(key, attempt, job, messages)
            except (TemporaryFailure, RefusedRequest) as error:
                problem = str(error)
                break
            spent.append(generated)
            described, problem = self._judged(job, generated)
            if described is not None:
                return _counted(described, spent)
            if is_echo(generated.text, job.parsed.text):
                break  # such a model will say the same again
            messages = corrected(job.messages, generated.text, problem)
        return _counted(replace(self._fallback(job), reason=problem), spent)

    def _answer(self, key: str, attempt: int, job: _Job, messages: list[Message]) -> Generated:
        """The kept answer, or a new one, which is kept."""
        known = self.cache.answers(key)
        if attempt < len(known):
            return known[attempt].generated
        try:
            generated = call_patiently(lambda: self._generate(messages), self.options.backoff, self.stop.wait)
        except RefusedRequest as error:
            if error.for_all:
                raise GeneratorUnavailable(f"{error}; nothing more was asked") from error
            raise
        except TemporaryFailure as error:
            self._note_failure(error)
            raise
        self._failures = 0
        self.cache.add(Answer(key, attempt, job.parsed.text, generated))
        return generated

    def _generate(self, messages: list[Message]) -> Generated:
        if self.stop.is_set():
            raise GeneratorUnavailable("the run was stopped")
        return self.generator.generate(messages)

    def _note_failure(self, error: TemporaryFailure) -> None:
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures >= FAILURES_IN_A_ROW:
            raise GeneratorUnavailable(
                f"{error}; {failures} statements in a row had no answer. What was answered is kept: give the same "
                "command again when the server is back"
            ) from error

    def _judged(self, job: _Job, generated: Generated) -> tuple[Described | None, str]:
        """The description that an answer gives, or None and what is wrong with it."""
        text = plain_answer(generated.text)
        if generated.is_cut:
            return None, "the answer was cut short"
        if not text:
            return None, "the answer was empty"
        if is_echo(text, job.parsed.text) or len(text.split()) > 2 * MOST_WORDS:
            return None, f"the answer repeats the question or is longer than {2 * MOST_WORDS} words"
        support = check_description(text, job.parsed.findings, job.passages)
        described = _described(job.parsed, support, job.passages, self.options, self.generator.name)
        if support.score < self.options.min_support or not described.description:
            flags = "; ".join(problem for said in support.flagged for problem in said.problems)
            return None, f"the passages support it too little ({support.score:.2f})" + (f": {flags}" if flags else "")
        return described, ""

    def _fallback(self, job: _Job) -> Described:
        if self.options.fallback == "extractive":
            return _extracted(job.parsed, self.grounds, self.options)
        return replace(without_waveform(job.parsed), outcome=FAILED)


def _counted(described: Described, spent: list[Generated]) -> Described:
    """With the tokens of all answers, also of those that were not used."""
    return replace(
        described,
        attempts=len(spent),
        prompt_tokens=sum(generated.prompt_tokens for generated in spent),
        completion_tokens=sum(generated.completion_tokens for generated in spent),
    )
