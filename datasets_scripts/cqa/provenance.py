"""What became of every statement, and the files that say so: the dictionary, and beside it its provenance.

    waveforms.json                    statement -> description, as `report_text.read_waveforms` takes it
    waveforms.provenance.jsonl        one line for each statement: findings, sources, support, what was flagged, why
    waveforms.not_understood.txt      statements, or parts of them, that the parser does not know

Each file is there as a whole or not at all; the dictionary is written last.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.statements import ParsedFinding, ParsedStatement

DESCRIBED, NO_WAVEFORM, NOT_UNDERSTOOD, FAILED = "described", "no waveform", "not understood", "failed"
REASONS = {
    "administrative": "speaks of the interpretation, not of the recording's waves",
    "quality": "speaks of the recording's quality",
    "summary": "sums up the other statements",
    "finding": "names only what no ECG shows by itself, or what is absent",
}
EXTRACTIVE = "extractive"  # the generator's name where there is no model
MILLION = 1_000_000


@dataclass(frozen=True)
class SaidSentence:
    """A sentence of a description: how well `source` supports it (0 to 1), and what is wrong with it."""

    text: str
    support: float
    source: str  # key of a passage, or "" where the statement itself says it
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Described:
    """A statement and what became of it.

    Attributes:
        statement: as it was first written.
        outcome: "described", "no waveform", "not understood" or "failed".
        kind: of the statement: finding, administrative, quality or summary.
        reason: why there is no waveform, or what went wrong before a description was found.
        description: empty unless described.
        findings: each with the modifiers that the statement gives it.
        not_understood: the words of the statement that the parser does not know.
        sentences, sources: of the description; sources are passages by their keys.
        support: from 0 to 1, None without description.
        generator: the model, or "extractive".
        attempts, prompt_tokens, completion_tokens: of all answers for this statement, also of those not used.
    """

    statement: str
    outcome: str
    kind: str
    reason: str = ""
    description: str = ""
    findings: tuple[dict[str, Any], ...] = ()
    not_understood: str = ""
    sentences: tuple[SaidSentence, ...] = ()
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    support: float | None = None
    generator: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def flagged(self) -> tuple[SaidSentence, ...]:
        """The sentences with problems."""
        return tuple(sentence for sentence in self.sentences if sentence.problems)


def finding_values(finding: ParsedFinding) -> dict[str, Any]:
    """A finding with what the statement says of it, and nothing that it leaves open."""
    return {
        item.name: getattr(finding, item.name)
        for item in fields(finding)
        if item.name == "name" or getattr(finding, item.name) != item.default
    }


def source_values(passage: Passage) -> dict[str, Any]:
    """Title, chapter, page and citation or file of a passage."""
    values = {"title": passage.title, "chapter": passage.chapter, "page": passage.page, "source": passage.source}
    return {name: value for name, value in values.items() if value not in ("", None)}


def without_waveform(parsed: ParsedStatement) -> Described:
    """What becomes of a statement that is not described."""
    findings = tuple(finding_values(finding) for finding in parsed.findings)
    if parsed.kind == "finding" and not parsed.findings:
        reason = "names nothing that findings.csv knows"
        return Described(parsed.text, NOT_UNDERSTOOD, parsed.kind, reason, not_understood=parsed.not_understood)
    return Described(
        parsed.text, NO_WAVEFORM, parsed.kind, REASONS[parsed.kind], findings=findings,
        not_understood=parsed.not_understood,
    )  # fmt: skip


def provenance_path(output: str | os.PathLike[str]) -> Path:
    """Where the provenance of a dictionary stands."""
    return _beside(output, "provenance.jsonl")


def not_understood_path(output: str | os.PathLike[str]) -> Path:
    """Where the statements that were not understood are listed."""
    return _beside(output, "not_understood.txt")


def answers_path(output: str | os.PathLike[str]) -> Path:
    """Where the answers of a model are kept."""
    return _beside(output, "answers.jsonl")


def write_results(results: Sequence[Described], output: str | os.PathLike[str], settings: dict[str, str]) -> None:
    """The three files, each written whole or not at all; the dictionary last.

    `settings` goes into every line of the provenance: hashes of prompt and corpus.
    """
    lines = (json.dumps(_values(result) | settings, ensure_ascii=False) for result in results)
    _write(provenance_path(output), "".join(f"{line}\n" for line in lines))
    left = [result for result in results if result.not_understood]
    _write(not_understood_path(output), "".join(f"{_one_line(left_one)}\n" for left_one in left))
    dictionary = {result.statement: result.description for result in results if result.description}
    _write(Path(output), f"{json.dumps(dictionary, ensure_ascii=False, indent=1)}\n")


def summary(results: Sequence[Described], seconds: float, prices: tuple[float, float] | None = None) -> list[str]:
    """The run in a few lines; `prices` are dollars for a million tokens of prompts and of answers."""
    outcomes = Counter(result.outcome for result in results)
    kinds = Counter(result.kind for result in results if result.outcome == NO_WAVEFORM)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines = [
        f"{len(results)} distinct statements in {seconds:.1f} s: {outcomes[DESCRIBED]} described, "
        f"{outcomes[NO_WAVEFORM]} without a waveform{f' ({told})' if told else ''}, "
        f"{outcomes[NOT_UNDERSTOOD]} not understood, {outcomes[FAILED]} failed"
    ]
    lines += _about_descriptions(results)
    tokens = [sum(getattr(result, name) for result in results) for name in ("prompt_tokens", "completion_tokens")]
    if any(tokens):
        lines.append(f"tokens: {tokens[0]} sent, {tokens[1]} received")
        if prices is not None:
            cost = sum(count * price for count, price in zip(tokens, prices, strict=True)) / MILLION
            lines.append(f"cost: ${cost:.2f}")
    return lines


def _about_descriptions(results: Sequence[Described]) -> list[str]:
    described = [result for result in results if result.outcome == DESCRIBED]
    lines: list[str] = []
    if described:
        words = sum(len(result.description.split()) for result in described) / len(described)
        support = sum(result.support or 0.0 for result in described) / len(described)
        flagged = sum(bool(result.flagged) for result in described)
        lines.append(f"descriptions: {words:.0f} words and support {support:.2f} on average, {flagged} with a flag")
    if partly := sum(bool(result.not_understood) for result in described):
        lines.append(f"described but for a part that was not understood: {partly}")
    fallen_back = [result for result in results if result.reason and result.outcome in (DESCRIBED, FAILED)]
    if fallen_back:
        first = fallen_back[0]
        lines.append(
            f"no usable answer of the model for {len(fallen_back)}, such as {first.statement!r}: {first.reason}"
        )
    return lines


def _values(result: Described) -> dict[str, Any]:
    """A line of the provenance: empty fields left out."""
    return {name: value for name, value in asdict(result).items() if value not in ("", (), {}, None, 0)} | {
        "flagged": [sentence.text for sentence in result.flagged]
    }


def _one_line(result: Described) -> str:
    whole = result.outcome == NOT_UNDERSTOOD
    statement = " ".join(result.statement.split())
    return statement if whole else f"{statement}\t{result.not_understood}"


def _beside(output: str | os.PathLike[str], ending: str) -> Path:
    output = Path(output)
    return output.with_name(f"{output.name.removesuffix('.json')}.{ending}")


def _write(path: Path, text: str) -> None:
    """A text file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f"{path.name}.building-{os.getpid()}")
    with building.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)
