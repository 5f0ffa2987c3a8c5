"""A server on the loopback interface that speaks as much of the OpenAI chat protocol as clients use, and misbehaves.

`behaviour` decides each answer from the number of the request for the same statement (from 1) and the statement. What
was asked is recorded by statement, so that a test can count.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NONSENSE = "The moon rises over the harbour while seven green horses sing about marmalade."


@dataclass(frozen=True)
class Reply:
    """One answer: a text with its finish reason, or a status that is an error."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds


Behaviour = Callable[[int, str, list[dict[str, str]]], Reply]


def from_passages(number: int, statement: str, messages: list[dict[str, str]]) -> Reply:
    """A good answer: the first two sentences of the first passage."""
    passage = re.search(r"^\[1\] [^:]*: (.*)$", messages[1]["content"], re.MULTILINE)[1]
    return Reply(" ".join(re.split(r"(?<=\.)\s+(?=[A-Z])", passage)[:2]))


class ChatServer(ThreadingHTTPServer):
    """Requests by statement (`asked`), those answered with status 200 (`answered`), and what stood in their headers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.bodies: list[dict] = []
        self.authorizations: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed goes away in the middle of an answer: that is no error of this server."""


@contextlib.contextmanager
def chat_server(behaviour: Behaviour = from_passages) -> Iterator[ChatServer]:
    """A server that runs while the block does."""
    server = ChatServer(behaviour)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": f"no route {self.path}"}})
            return
        messages = body["messages"]
        statement = messages[1]["content"].splitlines()[0].removeprefix("Statement: ")
        with server.lock:
            number = server.asked[statement] = server.asked.get(statement, 0) + 1
            server.bodies.append(body)
            server.authorizations.append(self.headers.get("authorization"))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        reply = server.behaviour(number, statement, messages)
        time.sleep(reply.delay)
        with server.lock:
            server.at_once -= 1
            if reply.status == 200:
                server.answered[statement] = server.answered.get(statement, 0) + 1
        self._send(reply.status, _completion(body, reply), reply.headers)

    def _send(self, status: int, values: dict, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Nothing: the tests look at what was recorded."""


def _completion(body: dict, reply: Reply) -> dict:
    if reply.status != 200:
        return {"error": {"message": "the double was told to fail"}}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    choice = {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish_reason}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice],
            "usage": usage}  # fmt: skip
