"""Chat models: what leaves the machine, whose key goes along, which failures are temporary; the back-off."""

import doctest
import random

import huggingface_hub.constants
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from openai_double import Reply, chat_server

from datasets_scripts.cqa import answer_cache, generator, retries
from datasets_scripts.cqa.answer_cache import Answer, AnswerCache
from datasets_scripts.cqa.generator import (
    Generated,
    InferenceGenerator,
    RefusedRequest,
    RemoteNotAllowed,
    TemporaryFailure,
    check_may_send,
    is_on_this_machine,
    seconds_to_wait,
)
from datasets_scripts.cqa.local_generator import LocalGenerator
from datasets_scripts.cqa.retries import Backoff, call_patiently

MESSAGES = [{"role": "system", "content": "Say."}, {"role": "user", "content": "Statement: Sinus rhythm"}]


def replying(**reply):
    return chat_server(lambda number, statement, messages: Reply(**reply))


@pytest.mark.parametrize("module", [answer_cache, generator, retries])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_an_answer_has_its_text_and_its_tokens():
    with replying(text="P waves are upright.") as server:
        asked = InferenceGenerator("tiny-model", server.url, max_tokens=37)
        assert asked.generate(MESSAGES) == Generated("P waves are upright.", 11, 7, "stop")
    (body,) = server.bodies
    assert (body["model"], body["max_tokens"], body["messages"]) == ("tiny-model", 37, MESSAGES)
    assert (asked.name, asked.where, asked.is_remote) == ("tiny-model", server.url, False)


def test_a_cut_answer_is_known_as_such_and_half_a_character_does_no_harm():
    with replying(text="P waves \ud83d are", finish_reason="length") as server:
        generated = InferenceGenerator(base_url=server.url).generate(MESSAGES)
    assert generated.is_cut and generated.text.encode() == b"P waves ? are"


@pytest.mark.parametrize(("key", "sent"), [(None, None), ("own-key", "Bearer own-key")])
def test_a_server_of_ones_own_never_gets_the_token_of_the_hub(monkeypatch, key, sent):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with replying(text="said") as server:
        InferenceGenerator("m", server.url, api_key=key).generate(MESSAGES)
    assert server.authorizations == [sent]


def test_offline_mode_does_not_stop_a_server_on_this_machine_and_stops_all_others(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with replying(text="said") as server:
        assert InferenceGenerator("m", server.url).generate(MESSAGES).text == "said"
    with pytest.raises(OfflineModeIsEnabled):
        InferenceGenerator("m", "http://192.0.2.1:8000").generate(MESSAGES)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_busy_and_broken_servers_fail_for_now(status):
    with replying(status=status, headers={"retry-after": "7"}) as server:
        with pytest.raises(TemporaryFailure, match=f"status {status}") as failure:
            InferenceGenerator("m", server.url).generate(MESSAGES)
    assert failure.value.wait == 7


@pytest.mark.parametrize(("status", "for_all"), [(400, False), (413, False), (401, True), (403, True), (404, True)])
def test_refusals_say_whether_anything_else_would_do_better(status, for_all):
    with replying(status=status) as server:
        with pytest.raises(RefusedRequest, match=f"status {status}") as refusal:
            InferenceGenerator("m", server.url).generate(MESSAGES)
    assert refusal.value.for_all is for_all


def test_silence_and_closed_doors_fail_for_now():
    with replying(text="late", delay=0.5) as server:
        with pytest.raises(TemporaryFailure, match="no answer in time|Timeout"):
            InferenceGenerator("m", server.url, timeout=0.05).generate(MESSAGES)
    with pytest.raises(TemporaryFailure, match="ConnectError"):
        InferenceGenerator("m", server.url).generate(MESSAGES)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True), ("http://localhost:11434", True), ("http://[::1]:8000", True),
        ("http://127.8.9.10", True), ("http://192.168.0.7:8000/v1", False), ("http://0.0.0.0:8000", False),
        ("https://api.example.org/v1", False), ("http://localhost.example.org", False),
        ("http://127.0.0.1.nip.io", False),
    ],
)  # fmt: skip
def test_only_loopback_is_this_machine(monkeypatch, url, here):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert is_on_this_machine(url) is here
    assert InferenceGenerator("m", url).is_remote is not here


def test_a_proxy_would_carry_it_away(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert not is_on_this_machine("http://127.0.0.1:8000")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert is_on_this_machine("http://127.0.0.1:8000")


@pytest.mark.parametrize(("model", "url"), [(None, None), ("m", "127.0.0.1:8000"), ("m", "ftp://127.0.0.1")])
def test_what_cannot_be_asked_is_refused(model, url):
    with pytest.raises(ValueError, match="expected"):
        InferenceGenerator(model, url)


def test_nothing_goes_elsewhere_without_permission():
    hub = InferenceGenerator("organisation/model")
    assert hub.is_remote
    allowed = {"allow_remote": False, "credentialed": (), "allow_credentialed": False}
    with pytest.raises(RemoteNotAllowed, match="--allow_remote"):
        check_may_send(hub, **allowed)
    with pytest.raises(RemoteNotAllowed, match="age, text: under a data use agreement.*--allow_credentialed"):
        check_may_send(hub, **allowed | {"allow_remote": True, "credentialed": ("age", "text")})
    check_may_send(hub, **allowed | {"allow_remote": True})
    check_may_send(hub, allow_remote=True, credentialed=("age",), allow_credentialed=True)
    check_may_send(InferenceGenerator("m", "http://localhost:1"), **allowed | {"credentialed": ("age",)})
    check_may_send(None, **allowed)


def test_retry_after_is_a_number_or_a_date():
    assert seconds_to_wait("12") == 12 and seconds_to_wait(None) is None and seconds_to_wait("tomorrow") is None
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_to_wait("Wed, 21 Oct 2115 07:28:00 GMT") > 10**9


def test_waits_double_within_their_limits():
    backoff = Backoff(first_wait=1, longest_wait=5, longest_asked=9)
    assert [backoff.wait(failures, None, 1.0) for failures in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert [backoff.wait(failures, None, 0.0) for failures in (1, 2, 3, 4)] == [0.5, 1, 2, 2.5]
    assert backoff.wait(1, 7, 1.0) == 7 and backoff.wait(1, 3600, 1.0) == 9
    with pytest.raises(ValueError, match="at least 1"):
        Backoff(attempts=0)


def test_a_call_is_made_again_until_it_succeeds_or_the_limit_is_reached():
    waits, outcomes = [], [TemporaryFailure("busy"), TemporaryFailure("busy", wait=3.0), "said"]

    def call():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert call_patiently(call, Backoff(attempts=3), waits.append, random.Random(1)) == "said"
    assert 0.5 <= waits[0] <= 1 and waits[1] == 3.0
    outcomes += [TemporaryFailure("first"), TemporaryFailure("last"), "never"]
    with pytest.raises(TemporaryFailure, match="last"):
        call_patiently(call, Backoff(attempts=2), waits.append)
    outcomes[:] = [RefusedRequest("no")]
    with pytest.raises(RefusedRequest):
        call_patiently(call, Backoff(attempts=5), waits.append)


# ----- what was answered is kept -------------------------------------------------------------------------------------


def test_answers_are_kept_and_a_line_that_was_cut_is_passed_over(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    first, second = (Answer("k", number, "Sinus rhythm \u2265", Generated(f"said {number}", 1, 2)) for number in (0, 1))
    with AnswerCache(path) as cache:
        cache.add(first)
        assert path.read_bytes().endswith(b"\n")  # on the disk before the file is closed
        cache.add(Answer("other", 0, "LBBB", Generated("wide")))
    path.write_bytes(path.read_bytes()[:-9])  # a kill in the middle of a write
    with AnswerCache(path) as cache:
        assert cache.answers("k") == (first,) and cache.answers("other") == ()
        cache.add(second)
    with AnswerCache(path) as cache:
        assert cache.answers("k") == (first, second)
    path.write_bytes(path.read_bytes() + b'{"key": 1}\n[]\nnull\n\xff\xfe\n')
    with AnswerCache(path) as cache:
        assert cache.answers("k") == (first, second)


def test_one_run_at_a_time_writes_the_answers(tmp_path):
    with AnswerCache(tmp_path / "a.jsonl"):
        with pytest.raises(ValueError, match="in use by another run"):
            AnswerCache(tmp_path / "a.jsonl").__enter__()


# ----- a model of this machine ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_chat_model(tmp_path_factory):
    """A folder with a model of random weights, two layers, and a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("chat")
    words = ["<end>", "<unknown>", *"system user assistant : Say Statement Sinus rhythm wave P Q T upright".split()]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>")
    wrapped.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}assistant :"
    wrapped.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=99, eos_token_id=0, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_local_model_answers_on_this_machine(tiny_chat_model):
    local = LocalGenerator(tiny_chat_model, max_tokens=5)
    generated = local.generate(MESSAGES)
    assert not local.is_remote and generated == local.generate(MESSAGES)
    assert generated.prompt_tokens == 12 and 1 <= generated.completion_tokens <= 5
    assert generated.is_cut or generated.completion_tokens < 5


def test_a_model_without_a_chat_template_is_refused(tiny_chat_model, tmp_path):
    for path in tiny_chat_model.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="chat template"):
        LocalGenerator(tmp_path)
