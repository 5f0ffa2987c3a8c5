"""As much of the Hub as models and data sets need, on loopback: repositories with commits, LFS, ranges of bytes."""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
import yaml
from huggingface_hub import HfFileSystem


class HubDouble(ThreadingHTTPServer):
    """What was asked (`asked`), what LFS holds (`lfs`), and for each repository its commits, oldest first.

    `refuse`: the status with which every request is answered; None answers them. `refuse_paths`: the same for paths
    that end in a word. `lfs_from`: the size from which files go to LFS. `most_bytes`: the largest body that was sent at
    once. `slow_uploads`: none ends while it is true; `uploading` is set by the first. `messages`: of the commits.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.lfs: dict[str, bytes] = {}
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.refuse: int | None = None
        self.refuse_paths: dict[str, int] = {}
        self.slow_uploads, self.uploading = False, threading.Event()
        self.messages: list[str] = []
        self.lfs_from, self.most_bytes = 1, 0

    def files(self, repository: str) -> dict[str, bytes]:
        """The files of a repository's newest commit."""
        return self.commits[repository][-1]


@contextlib.contextmanager
def hub_double() -> Iterator[HubDouble]:
    """A server that runs while the block does."""
    server = HubDouble()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def hub_of_this_process(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubDouble]:
    """A double that is the Hub for this process, too; what is downloaded goes to `cache`."""
    with hub_double() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {
            "ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False,
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        HfFileSystem.clear_instance_cache()  # it remembers where the Hub was
        yield server
        HfFileSystem.clear_instance_cache()


class Handler(BaseHTTPRequestHandler):
    """The routes that huggingface_hub asks; models and data sets share one name space."""

    protocol_version = "HTTP/1.1"
    server: HubDouble

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_PUT(self) -> None:
        self.route("PUT")

    def do_POST(self) -> None:
        self.route("POST")

    def route(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{method} {path}")
        told = [status for word, status in self.server.refuse_paths.items() if word in f"{method} {path}"]
        if told or self.server.refuse is not None:
            return self.answer({"error": "refused"}, told[0] if told else self.server.refuse)
        parts = path.strip("/").split("/")
        if method == "PUT":
            while self.server.slow_uploads:
                self.server.uploading.set()
                time.sleep(0.05)
            self.server.most_bytes = max(self.server.most_bytes, len(body))
            self.server.lfs[parts[-1]] = body
            return self.answer({})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self.lfs_batch(json.loads(body))
        if parts[0] == "api" and parts[1] in ("datasets", "models") and len(parts) >= 4:
            return self.repository(parts[1], "/".join(parts[2:4]), parts[4:], body)
        parts = parts[1:] if parts[0] == "datasets" else parts
        if len(parts) > 4 and parts[2] == "resolve":
            return self.resolve(method, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        if path == "/api/validate-yaml":
            errors = [{"message": error} for error in metadata_errors(json.loads(body)["content"])]
            return self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        self.missing("EntryNotFound")

    def create(self, wanted: dict) -> None:
        name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        url = self.page(f"{wanted.get('type') or 'model'}s", name)
        if name in self.server.commits:
            return self.answer({"error": "You already created this", "url": url}, 409)
        self.server.commits[name] = [{}]
        self.server.private[name] = bool(wanted.get("private") or wanted.get("visibility") == "private")
        self.answer({"url": url, "name": name})

    def lfs_batch(self, wanted: dict) -> None:
        objects = []
        for item in wanted["objects"]:
            told = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.lfs:
                told["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}", "header": {}}}
            objects.append(told)
        self.answer({"transfer": "basic", "objects": objects})

    def page(self, kind: str, name: str) -> str:
        return f"{self.server.url}/{'datasets/' if kind == 'datasets' else ''}{name}"

    def repository(self, kind: str, name: str, rest: list[str], body: bytes) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        if name not in self.server.commits or self.number_of(name, revision) is None:
            return self.missing("RepoNotFound" if name not in self.server.commits else "RevisionNotFound")
        files = self.server.commits[name][self.number_of(name, revision)]
        if rest[:1] == ["preupload"]:
            told = [self.upload_mode(file) for file in json.loads(body)["files"]]
            return self.answer({"files": told})
        if rest[:1] == ["commit"]:
            return self.commit(kind, name, [json.loads(line) for line in body.splitlines()])
        if rest[:1] in (["tree"], ["paths-info"]):
            return self.answer([described(file, content) for file, content in files.items()])
        siblings = [{"rfilename": file} for file in files]
        sha = f"{self.number_of(name, revision):040x}"
        self.answer({"id": name, "sha": sha, "private": self.server.private[name], "siblings": siblings})

    def upload_mode(self, file: dict) -> dict:
        in_lfs = file["path"].endswith((".parquet", ".safetensors")) and file["size"] >= self.server.lfs_from
        return {"path": file["path"], "uploadMode": "lfs" if in_lfs else "regular", "shouldIgnore": False}

    def commit(self, kind: str, name: str, lines: list[dict]) -> None:
        files = dict(self.server.files(name))
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != self.sha(name):
            return self.answer({"error": "A commit has happened since."}, 412)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.commits[name].append(files)
        self.server.messages.append(lines[0]["value"]["summary"])
        oid = self.sha(name)
        self.answer({"commitUrl": f"{self.page(kind, name)}/commit/{oid}", "commitOid": oid})

    def resolve(self, method: str, name: str, revision: str, file: str) -> None:
        if name not in self.server.commits:
            return self.missing("RepoNotFound")
        if (number := self.number_of(name, revision)) is None:
            return self.missing("RevisionNotFound")
        content = self.server.commits[name][number].get(file)
        if content is None:
            return self.missing("EntryNotFound")
        headers = {
            "X-Repo-Commit": f"{number:040x}", "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes",
        }  # fmt: skip
        status = 200
        if method == "GET" and "Range" in self.headers:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            content, status = content[int(first) : int(last or len(content) - 1) + 1], 206
            self.server.asked[-1] += f" {len(content)}"
        self.answer(content, status, headers)

    def number_of(self, name: str, revision: str) -> int | None:
        """Which commit a revision is: a hash, or the one branch."""
        last = len(self.server.commits[name]) - 1
        number = int(revision, 16) if len(revision) == 40 else last if revision == "main" else None
        return number if number is None or number <= last else None

    def sha(self, name: str) -> str:
        return f"{len(self.server.commits[name]) - 1:040x}"

    def missing(self, code: str) -> None:
        self.answer({"error": "not found"}, 404, {"X-Error-Code": code})

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(payload))} | (headers or {})
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def log_message(self, *args: object) -> None:
        """Quiet."""


def metadata_errors(card: str) -> Iterator[str]:
    """What the Hub would refuse in a card: https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    data = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
    if not re.fullmatch(r"[a-z0-9.+-]+", data.get("license", "mit")):
        yield '"license" must be one of its identifiers'
    for name in ("tags", "language", "base_model"):
        values = data.get(name, [])
        if not all(isinstance(value, str) for value in ([values] if isinstance(values, str) else values)):
            yield f'"{name}" must be texts'
    for model in data.get("model-index", []):
        for result in model["results"]:
            told = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"], model["name"]]
            told += [metric["type"] for metric in result["metrics"]]
            if not all(isinstance(value, str) and value for value in told):
                yield '"model-index" must name tasks, data sets and metrics'
            if not all(isinstance(metric["value"], int | float | str | dict) for metric in result["metrics"]):
                yield '"model-index" must give a value for each metric'


def described(file: str, content: bytes) -> dict:
    """A file as the tree lists it."""
    told = {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if file.endswith((".parquet", ".safetensors")):
        told["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 128}
    return told
