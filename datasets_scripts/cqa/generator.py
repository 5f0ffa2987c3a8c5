"""Chat models that write, through `huggingface_hub.InferenceClient`: of the Hub, or of a server by its URL.

Any server that speaks the OpenAI chat protocol will do: vLLM, TGI, llama.cpp, Ollama. What leaves this machine is
known beforehand (`is_remote`), so that nothing is sent that nobody allowed. A model that runs in this process is in
`local_generator.py`. A server that is busy or breaks down raises
`TemporaryFailure`, one that does not take the request `RefusedRequest`; `retries.py` says who is asked again.
"""

from __future__ import annotations

import ipaddress
import threading
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

from huggingface_hub import InferenceClient, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError
from huggingface_hub.utils import get_session

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
CUT_SHORT = "length"  # the finish reason of an answer that was cut
BUSY_STATUSES = frozenset({408, 409, 425, 429})  # and 5xx: the same request may succeed later
CLOSED_STATUSES = frozenset({401, 402, 403, 404, 405})  # no other request will do better


class TemporaryFailure(ConnectionError):
    """A request that may succeed later; `wait` is how many seconds the server asked for, None where it did not."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class RefusedRequest(ValueError):
    """A request that this server does not take; `for_all` where it will take no other one either."""

    def __init__(self, message: str, for_all: bool = False) -> None:
        super().__init__(message)
        self.for_all = for_all


@dataclass(frozen=True)
class Generated:
    """An answer: its text, the tokens as the server counts them (0 where it does not), and why it ended."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"

    @property
    def is_cut(self) -> bool:
        """Whether the answer ended because it was too long."""
        return self.finish_reason == CUT_SHORT


class Generator(Protocol):
    """A chat model: `name` tells it apart in caches and provenance, `where` says where it runs.

    `is_remote` is whether that is outside this machine.
    """

    name: str
    where: str
    is_remote: bool

    def generate(self, messages: list[Message]) -> Generated:
        """The answer to a conversation. Raises TemporaryFailure or RefusedRequest."""


class InferenceGenerator:
    """A model of the Hub, or of a server of your own.

    Args:
        model: its name, "organisation/model" on the Hub; what a server calls it, where `base_url` is given.
        base_url: the URL of a server, such as `http://127.0.0.1:8000/v1`; None for the Hub.
        api_key: what the server asks for. A server of your own never gets the token of the Hub.
        max_tokens: after how many tokens an answer is cut.
        temperature: 0 asks for the most likely words.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: without model and URL, or for a URL that is none.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        max_tokens: int = 400,
        temperature: float = 0.0,
        timeout: float = 120.0,
    ) -> None:
        if not model and not base_url:
            raise ValueError("generator: expected a model or the URL of a server, got neither; pass --model")
        if base_url is not None:
            _check_url(base_url)
        self.name = str(model or base_url)  # the same model on another port is the same model
        self.where = base_url or "the Hugging Face Hub"
        self.is_remote = base_url is None or not is_on_this_machine(base_url)
        self._model, self._options = model, {"max_tokens": max_tokens, "temperature": temperature}
        # without a key of its own, a server would be sent the token that is stored for the Hub
        headers: Any = None if base_url is None or api_key else {"authorization": None}
        target = {"model": model} if base_url is None else {"base_url": base_url}
        self._client = InferenceClient(**target, api_key=api_key, timeout=timeout, headers=headers)

    def generate(self, messages: list[Message]) -> Generated:
        """The first choice of the server. Raises TemporaryFailure or RefusedRequest."""
        if not self.is_remote and is_offline_mode():
            _let_loopback_pass()
        try:
            answer = self._client.chat_completion(messages, model=self._model, **self._options)
        except InferenceTimeoutError as error:
            raise TemporaryFailure(f"{self.where}: no answer in time") from error
        except HfHubHTTPError as error:
            raise self._failure(error) from error
        except HTTPError as error:
            raise TemporaryFailure(f"{self.where}: {type(error).__name__}: {error}") from error
        return _first_choice(answer, self.where)

    def _failure(self, error: HfHubHTTPError) -> TemporaryFailure | RefusedRequest:
        status = error.response.status_code
        told = f"{self.where}: status {status}: {str(error).splitlines()[0]}"
        if status in BUSY_STATUSES or status >= 500:
            return TemporaryFailure(told, seconds_to_wait(error.response.headers.get("retry-after")))
        return RefusedRequest(told, for_all=status in CLOSED_STATUSES)


class AnnouncedGenerator:
    """A model elsewhere, whose first message is shown before it is sent."""

    def __init__(self, generator: Generator, announce: Callable[[str], object]) -> None:
        self.name, self.where, self.is_remote = generator.name, generator.where, generator.is_remote
        self._generator, self._announce = generator, announce
        self._announced, self._lock = False, threading.Lock()

    def generate(self, messages: list[Message]) -> Generated:
        """The answer of the model. Raises TemporaryFailure or RefusedRequest."""
        with self._lock:
            if not self._announced:
                told = "\n".join(f"{message['role']}: {message['content']}" for message in messages)
                self._announce(f"The first message that goes to {self.name} at {self.where}:\n{told}\n")
            self._announced = True
        return self._generator.generate(messages)


class RemoteNotAllowed(PermissionError):
    """Something would have left this machine without permission."""


def check_may_send(
    generator: Generator | None, *, allow_remote: bool, credentialed: Sequence[str], allow_credentialed: bool
) -> None:
    """RemoteNotAllowed where statements would go to another machine without permission.

    `credentialed` names what comes from tables under a data use agreement; empty where nothing does.
    """
    if generator is None or not generator.is_remote:
        return
    if not allow_remote:
        raise RemoteNotAllowed(
            f"{generator.name} at {generator.where}: is not on this machine, and statements would be sent there; pass "
            "--allow_remote if they may be, or use a model of this machine (--generator local, or a URL on 127.0.0.1)"
        )
    if credentialed and not allow_credentialed:
        raise RemoteNotAllowed(
            f"{', '.join(credentialed)}: under a data use agreement, which may forbid sending to {generator.where}; "
            "use a model of this machine, or pass --allow_credentialed if the agreement allows it"
        )


def is_on_this_machine(url: str) -> bool:
    """Whether a URL leads to a loopback address, and no proxy that is set would carry it elsewhere.

    >>> is_on_this_machine("http://127.0.0.1:8000/v1"), is_on_this_machine("http://192.168.0.7:8000/v1")
    (True, False)
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host != "localhost" and not host.endswith(".localhost") and not _is_loopback(host):
        return False
    proxies = urllib.request.getproxies()
    return not (parts.scheme in proxies or "all" in proxies) or bool(urllib.request.proxy_bypass(host))


def seconds_to_wait(retry_after: str | None) -> float | None:
    """The header Retry-After in seconds: a number, or a date (RFC 9110, 10.2.3); None where it says neither.

    >>> seconds_to_wait("2"), seconds_to_wait("soon")
    (2.0, None)
    """
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return None


class _UnlessLoopback:
    """The request hooks of the Hub's client, passed over on the way to this machine."""

    def __init__(self, hooks: Sequence[Callable[[Any], object]]) -> None:
        self._hooks = hooks

    def __call__(self, request: Any) -> None:
        if not is_on_this_machine(str(request.url)):
            for hook in self._hooks:
                hook(request)


def _let_loopback_pass() -> None:
    """HF_HUB_OFFLINE stops every request of the Hub's client; what stays on this machine needs no network."""
    client = get_session()
    hooks = client.event_hooks["request"]
    if not any(isinstance(hook, _UnlessLoopback) for hook in hooks):
        client.event_hooks = {**client.event_hooks, "request": [_UnlessLoopback(hooks)]}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"generator: expected a URL such as http://127.0.0.1:8000/v1, got {url!r}")


def _first_choice(answer: Any, where: str) -> Generated:
    """The text and the counts of a chat completion; a server that speaks otherwise counts as one that broke down."""
    try:
        choice, usage = answer.choices[0], answer.usage
        text = (choice.message.content or "").encode(errors="replace").decode()  # half a surrogate pair is no text
    except (AttributeError, IndexError, TypeError, KeyError) as error:
        raise TemporaryFailure(f"{where}: expected a chat completion, got {str(answer)[:200]!r}") from error
    counts = (getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)
    return Generated(text, *counts, choice.finish_reason or "stop")
