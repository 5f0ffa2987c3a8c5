"""The assistant: every statement answered or reported, none lost, none asked twice; sources, checks, files, summary."""

import csv
import doctest
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from openai_double import NONSENSE, Reply, chat_server, from_passages
from tiny_prepared import tiny_record, write_prepared

from datasets_scripts.cqa import assistant, prompts
from datasets_scripts.cqa.__main__ import main
from datasets_scripts.cqa.ask import Answer
from datasets_scripts.cqa.assistant import GeneratorUnavailable, Options, describe_statements
from datasets_scripts.cqa.generator import AnnouncedGenerator, Generated, InferenceGenerator
from datasets_scripts.cqa.grounds import Grounds
from datasets_scripts.cqa.passages import Passage
from datasets_scripts.cqa.provenance import DESCRIBED, EXTRACTIVE, FAILED, NO_WAVEFORM, NOT_UNDERSTOOD, REASONS
from datasets_scripts.cqa.retries import Backoff
from datasets_scripts.cqa.retriever import Retriever
from datasets_scripts.report_text import read_waveforms

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
STATEMENTS = [
    "Sinus rhythm", "Left bundle branch block", "Possible old inferior infarct", "Atrial flutter", "frequent PVCs",
    "First degree AV block", "Lead(s) unsuitable for analysis: V1", "Abnormal ECG", "SINUS RHYTHM.", "T wave inversion",
    "** unconfirmed **", "Right bundle branch block", "Long QT interval", "Sinus bradycardia",
]  # fmt: skip
DISTINCT, DESCRIBABLE = 13, 10
QUICK = Options(num_workers=3, backoff=Backoff(attempts=4, first_wait=0.01, longest_wait=0.02))
TWICE = replace(QUICK, attempts=2)


@pytest.fixture(scope="module")
def grounds():
    return Grounds()


@pytest.fixture
def ask(tmp_path, grounds):
    """Describes statements with a server that behaves so, and gives the results and the server."""

    def asked(behaviour=from_passages, statements=STATEMENTS, options=QUICK, cache="answers.jsonl", **settings):
        with chat_server(behaviour) as server:
            generator = InferenceGenerator("tiny", server.url, **settings)
            results = describe_statements(statements, generator, grounds, tmp_path / cache, options)
        return results, server

    return asked


def outcomes(results):
    return [sum(result.outcome == outcome for result in results) for outcome in (DESCRIBED, NO_WAVEFORM, FAILED)]


def test_examples_in_docstrings():
    assert doctest.testmod(assistant).failed == doctest.testmod(prompts).failed == 0


# ----- without a model -----------------------------------------------------------------------------------------------


def test_statements_are_described_once_with_their_sources(grounds):
    results = describe_statements(STATEMENTS, grounds=grounds)
    assert len(results) == DISTINCT and outcomes(results) == [DESCRIBABLE, 3, 0]
    for result in results:
        if result.outcome == DESCRIBED:
            assert result.generator == EXTRACTIVE and result.support > 0.8 and result.sources and not result.reason
            assert result.description == " ".join(sentence.text for sentence in result.sentences)
            assert all(sentence.source in result.sources for sentence in result.sentences if sentence.source)
            assert all("https://" in source["source"] for source in result.sources.values())
    (infarct,) = [result for result in results if "inferior" in result.statement]
    assert infarct.findings[0] == {
        "name": "inferior myocardial infarction", "certainty": "possible", "territory": ("inferior",),
        "age_of_infarct": "old",
    }  # fmt: skip
    assert infarct.sentences[0].text == "Possible old inferior myocardial infarction." and not infarct.flagged


def test_what_has_no_waveform_says_why_and_what_is_unknown_is_told_so(grounds):
    texts = ["Abnormal ECG", "Lead(s) unsuitable for analysis: V1", "** unconfirmed **", "xyzzy plugh", "No PVCs"]
    summary, quality, administrative, unknown, absent = describe_statements(texts, grounds=grounds)
    assert [one.kind for one in (summary, quality, administrative)] == ["summary", "quality", "administrative"]
    assert all(one.outcome == NO_WAVEFORM and one.reason for one in (summary, quality, administrative, absent))
    assert unknown.outcome == NOT_UNDERSTOOD and unknown.not_understood == "xyzzy plugh"
    (partly,) = describe_statements(["Sinus rhythm with xyzzy"], grounds=grounds)
    assert partly.outcome == DESCRIBED and partly.not_understood == "xyzzy"


def test_books_bring_a_sentence_of_their_own(grounds):
    book = Passage("In left bundle branch block a notch is seen in V6 of my uncle. Nothing else.", "My uncle", page=7)
    other = Passage("Cooking with gas is 120 mm better.", "Kitchen", page=1)
    own = Grounds(Retriever.build([book, other]))
    (result,) = describe_statements(["LBBB"], grounds=own)
    assert result.description.endswith("a notch is seen in V6 of my uncle.") and "gas" not in result.description
    assert result.sources[book.key] == {"title": "My uncle", "page": 7} and own.corpus_hash != grounds.corpus_hash


# ----- with a model --------------------------------------------------------------------------------------------------


def test_every_statement_is_asked_for_once_and_answered(ask):
    results, server = ask()
    assert outcomes(results) == [DESCRIBABLE, 3, 0] and len(server.asked) == DESCRIBABLE
    assert set(server.asked.values()) == {1} and server.most_at_once <= 3
    for result in results:
        if result.outcome == DESCRIBED:
            assert result.generator == "tiny" and (result.prompt_tokens, result.completion_tokens) == (11, 7)
            assert result.support > 0.8 and result.sources and not result.reason
    again, idle = ask()
    assert again == results and not idle.asked


def test_the_message_holds_the_statement_its_doubts_and_numbered_passages(ask):
    _, server = ask(statements=["Possible old inferior infarct"])
    system, user = server.bodies[0]["messages"]
    assert system["role"] == "system" and "Use only what the numbered passages say" in system["content"]
    assert user["content"].startswith("Statement: Possible old inferior infarct\n")
    assert "- Possible old inferior myocardial infarction." in user["content"]
    assert "[1] inferior myocardial infarction, Waveform: Inferior myocardial" in user["content"]


def test_busy_and_broken_servers_are_asked_again(ask):
    statuses = {1: 429, 2: 500, 3: 200}

    def fails_twice(number, statement, messages):
        if statuses[number] == 200:
            return from_passages(number, statement, messages)
        return Reply(status=statuses[number], headers={"retry-after": "0"})

    results, server = ask(fails_twice)
    assert outcomes(results) == [DESCRIBABLE, 3, 0] and all(result.generator != EXTRACTIVE for result in results)
    assert set(server.asked.values()) == {3} and set(server.answered.values()) == {1}


def test_a_server_that_asks_for_time_gets_it(ask):
    behaviours = {1: Reply(status=429, headers={"retry-after": "1"})}
    start = time.monotonic()
    ask(lambda number, *rest: behaviours.get(number) or from_passages(number, *rest), ["LBBB"])
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply("The QRS is wide", finish_reason="length"), "cut short"),
        (Reply(NONSENSE), "support it too little"),
        (Reply("   "), "empty"),
        (Reply("word " * 400), "longer than"),
    ],
)
def test_answers_that_are_no_use_are_replaced_and_reported_and_asked_for_once_more_if_wished(ask, reply, problem):
    first, server = ask(lambda *_: reply)
    assert outcomes(first) == [DESCRIBABLE, 3, 0] and set(server.asked.values()) == {1}
    assert all(
        result.generator == EXTRACTIVE and problem in result.reason for result in first if result.kind == "finding"
    )
    results, server = ask(lambda *_: reply, options=TWICE, cache="twice.jsonl")
    assert outcomes(results) == [DESCRIBABLE, 3, 0] and set(server.asked.values()) == {2}
    described = [result for result in results if result.outcome == DESCRIBED]
    assert all(result.generator == EXTRACTIVE and problem in result.reason for result in described)
    assert {(result.attempts, result.prompt_tokens) for result in described} == {(2, 22)}
    corrections = [body["messages"][-1]["content"] for body in server.bodies if len(body["messages"]) == 4]
    assert len(corrections) == DESCRIBABLE and all(problem in text for text in corrections)
    again, idle = ask(lambda *_: reply, options=TWICE, cache="twice.jsonl")
    assert again == results and not idle.asked


def test_a_second_answer_can_be_the_good_one(ask):
    results, server = ask(
        lambda number, *rest: from_passages(number, *rest) if number == 2 else Reply(NONSENSE), options=TWICE
    )
    assert {result.generator for result in results if result.outcome == DESCRIBED} == {"tiny"}
    assert set(server.asked.values()) == {2}


def test_a_server_that_repeats_the_question_is_not_asked_for_it_again(ask):
    results, server = ask(lambda number, statement, messages: Reply(messages[-1]["content"]), options=TWICE)
    assert set(server.asked.values()) == {1} and outcomes(results) == [DESCRIBABLE, 3, 0]
    assert all("repeats the question" in result.reason for result in results if result.outcome == DESCRIBED)


def test_without_fallback_a_statement_fails_and_is_reported(ask):
    results, _ = ask(lambda *_: Reply(NONSENSE), options=replace(QUICK, fallback="none"))
    assert outcomes(results) == [0, 3, DESCRIBABLE]
    assert all(result.reason and not result.description for result in results if result.outcome == FAILED)


def test_flagged_sentences_are_told_and_dropped_where_asked(ask):
    def invents(number, statement, messages):
        return Reply(from_passages(number, statement, messages).text + " ST elevation of 0.7 mV is seen in V1-V3.")

    ((told,), _), ((dropped,), server) = (
        ask(invents, ["Left bundle branch block"], options) for options in (QUICK, replace(QUICK, drop_flagged=True))
    )
    assert "0.7 mV" in told.description and [said.text for said in told.flagged] == [
        "ST elevation of 0.7 mV is seen in V1-V3."
    ]
    assert "0.7 mV" not in dropped.description and dropped.flagged == told.flagged and not server.asked


def test_refusals_of_one_statement_are_reported_and_refusals_of_all_end_the_run(ask, tmp_path):
    def refuses(number, statement, messages):
        return Reply(status=413) if statement == "Atrial flutter" else from_passages(number, statement, messages)

    results, server = ask(refuses)
    (refused,) = [result for result in results if result.reason and result.outcome == DESCRIBED]
    assert (
        refused.statement == "Atrial flutter" and "status 413" in refused.reason and server.asked["Atrial flutter"] == 1
    )
    with pytest.raises(GeneratorUnavailable, match="status 401.*nothing more was asked"):
        ask(lambda *_: Reply(status=401), cache="others.jsonl")


def test_a_server_that_never_answers_ends_the_run_and_keeps_what_was_answered(ask, monkeypatch):
    monkeypatch.setattr(assistant, "FAILURES_IN_A_ROW", 3)
    options = replace(QUICK, num_workers=1, backoff=Backoff(attempts=1))
    with pytest.raises(GeneratorUnavailable, match="3 statements in a row had no answer"):
        ask(lambda number, statement, messages: (
            from_passages(number, statement, messages) if statement == "Sinus rhythm" else Reply(status=503)
        ), options=options)  # fmt: skip
    results, server = ask()
    assert "Sinus rhythm" not in server.asked and len(server.asked) == DESCRIBABLE - 1
    assert outcomes(results) == [DESCRIBABLE, 3, 0]


def test_another_model_is_asked_anew(ask, tmp_path, grounds):
    ask(statements=["LBBB"])
    with chat_server() as server:
        describe_statements(
            ["LBBB"], InferenceGenerator("other", server.url), grounds, tmp_path / "answers.jsonl", QUICK
        )
    assert server.asked == {"LBBB": 1}


class Remote:
    """A model elsewhere, as far as the assistant knows."""

    name, where, is_remote = "remote", "https://models.example.org", True

    def generate(self, messages):
        return Generated(from_passages(1, "", messages).text)


def test_the_first_message_is_shown_before_it_leaves(tmp_path, grounds):
    shown = []
    describe_statements(STATEMENTS, AnnouncedGenerator(Remote(), shown.append), grounds, tmp_path / "a.jsonl", QUICK)
    assert (
        len(shown) == 1
        and "first message that goes to remote at https://models.example.org" in shown[0]
        and "Statement: " in shown[0]
    )
    with pytest.raises(ValueError, match="cache_path"):
        describe_statements(["LBBB"], Remote(), grounds)


def test_options_that_make_no_sense_are_refused():
    for name, value in (("num_workers", 0), ("attempts", 0), ("min_support", 2), ("fallback", "guess")):
        with pytest.raises(ValueError, match=name):
            Options(**{name: value})


def test_four_hundred_statements_with_every_misbehaviour(ask):
    """None lost, none asked twice: each gets one answer with status 200, also where it is no use."""
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", *(f"V{number}" for number in range(1, 7))]
    waves = ("ST elevation", "ST depression", "T wave inversion", "Abnormal Q waves", "Low voltage")
    statements = [f"{wave} in {lead}" for wave in waves for lead in leads]
    statements += [f"{hedge} {place} infarct" for hedge in ("Possible", "Probable", "Old", "Acute", "Borderline")
                   for place in ("inferior", "anterior", "lateral", "septal", "anteroseptal")]  # fmt: skip
    kinds = {}

    def misbehaves(number, statement, messages):
        kind = kinds.setdefault(statement, len(kinds) % 6)
        if kind == 1 and number == 1:
            return Reply(status=429, headers={"retry-after": "0"})
        if kind == 2 and number <= 2:
            return Reply(status=500)
        if kind == 3:
            return Reply("The ST segment", finish_reason="length")
        if kind == 4:
            return Reply(NONSENSE)
        return replace(from_passages(number, statement, messages), delay=0.01 * (kind == 5))

    results, server = ask(misbehaves, statements, replace(QUICK, num_workers=8))
    assert len(results) == len(statements) == len(server.asked) and outcomes(results) == [len(statements), 0, 0]
    for result in results:
        kind = kinds[result.statement]
        assert server.answered[result.statement] == 1
        assert (result.generator == EXTRACTIVE) == (kind in (3, 4)) == bool(result.reason)
    again, idle = ask(misbehaves, statements)
    assert again == results and not idle.asked


# ----- the command line ----------------------------------------------------------------------------------------------


def write_statements(path, statements=STATEMENTS):
    path.write_text("".join(f"{statement}\n" for statement in statements), encoding="utf-8")
    return path


def describe(tmp_path, *flags, statements=STATEMENTS):
    source = [] if "--dataset" in flags else ["--statements", str(write_statements(tmp_path / "said.txt", statements))]
    return main(["describe", *source, "--output", str(tmp_path / "out" / "waveforms.json"), *map(str, flags)])


def test_describe_writes_a_dictionary_and_its_provenance(tmp_path, capsys):
    assert describe(tmp_path, statements=[*STATEMENTS, "xyzzy"]) == 0
    told = capsys.readouterr().out
    assert f"{DISTINCT + 1} distinct statements" in told and f"{DESCRIBABLE} described" in told
    assert "3 without a waveform (1 administrative, 1 quality, 1 summary), 1 not understood, 0 failed" in told
    waveforms = read_waveforms(tmp_path / "out" / "waveforms.json")
    assert len(waveforms) == DESCRIBABLE and waveforms["sinus rhythm"].startswith("In sinus rhythm a P wave")
    lines = [json.loads(line) for line in (tmp_path / "out" / "waveforms.provenance.jsonl").open(encoding="utf-8")]
    assert len(lines) == DISTINCT + 1 and all(line["corpus_hash"] and "flagged" in line for line in lines)
    assert (tmp_path / "out" / "waveforms.not_understood.txt").read_text() == "xyzzy\n"


def test_describe_with_a_server_counts_tokens_and_cost(tmp_path, capsys):
    with chat_server() as server:
        assert describe(tmp_path, "--generator", server.url, "--model", "tiny", "--prices", 1000, 2000) == 0
    told = capsys.readouterr().out
    assert f"tokens: {11 * DESCRIBABLE} sent, {7 * DESCRIBABLE} received" in told
    assert f"cost: ${(11 * 1000 + 7 * 2000) * DESCRIBABLE / 1e6:.2f}" in told
    lines = [json.loads(line) for line in (tmp_path / "out" / "waveforms.provenance.jsonl").open()]
    assert all(line["prompt_hash"] for line in lines)


def test_describe_takes_the_statements_of_a_prepared_data_set(tmp_path, capsys):
    records = [tiny_record(1).with_metadata(statements=("Sinus rhythm", "LBBB")),
               tiny_record(2).with_metadata(statements=("LBBB", "sinus rhythm."))]  # fmt: skip
    write_prepared(tmp_path / "data", {"train-00000": records[:1], "test-00000": records[1:]})
    assert describe(tmp_path, "--dataset", tmp_path / "data") == 0
    assert list(json.loads((tmp_path / "out" / "waveforms.json").read_text())) == ["Sinus rhythm", "LBBB"]
    write_prepared(tmp_path / "silent", {"train-00000": [tiny_record(1)]})
    assert describe(tmp_path, "--dataset", tmp_path / "silent") == 1
    assert "this data set has reports only" in capsys.readouterr().err


def test_describe_refuses_what_may_not_leave(tmp_path, capsys):
    elsewhere = ("--generator", "https://models.example.org/v1", "--model", "m")
    assert describe(tmp_path, *elsewhere) == 1 and "--allow_remote" in capsys.readouterr().err
    assert describe(tmp_path, *elsewhere, "--allow_remote", "--credentialed") == 1
    assert "the statements: under a data use agreement" in capsys.readouterr().err
    write_prepared(
        tmp_path / "data", {"train-00000": [tiny_record(1).with_metadata(statements=("LBBB",))]},
        credentialed_columns=["age", "sex"],
    )  # fmt: skip
    assert describe(tmp_path, "--dataset", tmp_path / "data", *elsewhere, "--allow_remote") == 1
    assert "age, sex: under a data use agreement" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--generator", "hub"), "expected --model"),
        (("--generator", "tiny"), "expected a URL"),
        (("--generator", "http://127.0.0.1:1", "--api_key_env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
        (("--min_support", "7"), "min_support"),
        (("--index", "nowhere"), "nowhere"),
    ],
)
def test_flags_that_make_no_sense_are_one_sentence(tmp_path, capsys, flags, told):
    assert describe(tmp_path, *flags) == 1
    assert told in capsys.readouterr().err


def test_files_that_make_no_sense_are_one_sentence(tmp_path, capsys):
    output = str(tmp_path / "w.json")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"Vorhofflimmern m\xf6glich\n")
    for name, told in (("none.txt", "no such file"), ("empty.txt", "got none"), ("latin.txt", "UTF-8")):
        assert main(["describe", "--statements", str(tmp_path / name), "--output", output]) == 1
        assert told in capsys.readouterr().err
    assert describe(tmp_path, statements=["LBBB"]) == 0
    assert main(["describe", "--statements", str(tmp_path / "said.txt"), "--output", str(tmp_path)]) == 1
    assert "got a folder" in capsys.readouterr().err


def test_ask_answers_with_sources(capsys):
    assert main(["ask", "How is Wenckebach seen on the ECG?"]) == 0
    told = capsys.readouterr().out
    assert "PR interval" in told and "[1] mobitz type i second degree av block, Waveform" in told and "https://" in told
    assert main(["ask", "What is the price of tulips in Utrecht?"]) == 1
    assert "[1]" not in capsys.readouterr().out


def test_ask_tells_what_it_left_out(capsys, monkeypatch):
    dropped = (("It is 900 ms in V4.", "the passage has 120 to 200 ms"), ("The moon is blue.", "cites nothing"))
    page = Passage("The PR interval grows.", "Blocks", page=3)
    monkeypatch.setattr("datasets_scripts.cqa.__main__._retriever", lambda _: object())
    monkeypatch.setattr("datasets_scripts.cqa.ask.answer", lambda *_: Answer("It grows. [1]", (page,), (), dropped))
    assert main(["ask", "How is Wenckebach seen?"]) == 0
    assert capsys.readouterr().out == (
        "It grows. [1]\n[1] Blocks, page 3\nLeft out, since no passage supports it:\n"
        "- It is 900 ms in V4. (the passage has 120 to 200 ms)\n- The moon is blue. (cites nothing)\n"
    )


def test_index_is_written_and_used(tmp_path, capsys):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "uncle.md").write_text(
        "# My uncle\n\nIn left bundle branch block a notch is seen in V6 of him.\n"
    )
    assert main(["index", "--corpus", str(tmp_path / "books"), "--output", str(tmp_path / "index")]) == 0
    assert "from 1 of 1 files" in capsys.readouterr().out
    for flags in (("--index", tmp_path / "index"), ("--corpus", tmp_path / "books")):
        assert describe(tmp_path, *flags, statements=["LBBB"]) == 0
        assert "V6 of him" in read_waveforms(tmp_path / "out" / "waveforms.json")["lbbb"]


def test_limit_takes_the_first_ones(tmp_path):
    assert describe(tmp_path, "--limit", 2) == 0
    assert len(read_waveforms(tmp_path / "out" / "waveforms.json")) == 2


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_asks_only_the_rest(tmp_path):
    statements = [f"{wave} in V{number}" for wave in ("ST elevation", "ST depression", "Q waves", "T wave inversion")
                  for number in range(1, 7)]  # fmt: skip
    path = write_statements(tmp_path / "said.txt", statements)
    workers = 3
    with chat_server(lambda *rest: replace(from_passages(*rest), delay=0.15)) as server:
        command = [
            sys.executable, "-m", "datasets_scripts.cqa", "describe", "--statements", str(path), "--output",
            str(tmp_path / "w.json"), "--generator", server.url, "--model", "tiny", "--num_workers", str(workers),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        for kept_before_kill in (4, 9):
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
            while process.poll() is None and len(server.answered) < kept_before_kill:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (tmp_path / "w.json").exists()
            (tmp_path / "w.answers.jsonl").open("ab").write(b'{"key": "half a li')
        kept = {json.loads(line)["statement"] for line in (tmp_path / "w.answers.jsonl").open() if line.endswith("}\n")}
        before = dict(server.asked)
        assert subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True).returncode == 0
    assert len(kept) >= 9 - 2 * workers and all(server.asked[statement] == before[statement] for statement in kept)
    assert sum(server.asked.values()) <= len(statements) + 2 * workers  # those that were under way at a kill
    assert len(read_waveforms(tmp_path / "w.json")) == len(statements)


# ----- real statements -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of data beside the checkout is not here")
def test_real_statements_are_described_or_rightly_not(grounds):
    """Both kinds of source: MIMIC-IV-ECG's machine statements (a seventh of the half at hand) and all of PTB-XL's."""
    mimic = (SHARED / "mimic_statements.txt").read_text(encoding="utf-8").splitlines()[::7]
    with (SHARED / "ptbxl" / "scp_statements.csv").open(encoding="utf-8") as file:
        ptb_xl = [row["description"] for row in csv.DictReader(file)]
    assert len(ptb_xl) == 71
    for statements, least in ((mimic, 0.97), (ptb_xl, 1.0)):
        results = describe_statements(statements, grounds=grounds)
        served = [result for result in results if result.outcome in (DESCRIBED, NO_WAVEFORM)]
        described = [result for result in results if result.outcome == DESCRIBED]
        assert len(served) >= least * len(results)
        assert {result.reason for result in served if result.outcome == NO_WAVEFORM} <= set(REASONS.values())
        assert sum(bool(result.flagged) for result in described) < 0.05 * len(described)
        assert sum(result.support for result in described) > 0.9 * len(described)
    (normal,) = [result for result in results if result.statement == "normal ECG"]
    assert "60 to 100 bpm" in normal.description and "120 to 200 ms" in normal.description
