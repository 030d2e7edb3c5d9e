"""As much of Google Cloud Storage as dreamctl asks for, on loopback, with conditions that hold and faults on request.

For what the emulator lacks: preconditions, ended sessions, pages, private objects, and answers that go wrong.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

API, UPLOAD = "/storage/v1/b/", "/upload/storage/v1/b/"


@dataclass
class Fault:
    """What happens instead of the next requests that it fits, or (`after`) after they were obeyed.

    `status` 0 closes the connection without an answer; `kept` bytes of a chunk are kept nevertheless.
    """

    method: str
    where: str  # a part of the path and query
    status: int = 0
    times: int = 1
    after: bool = False
    kept: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Stored:
    name: str
    data: bytes
    generation: int
    metadata: dict[str, str]
    kind: str
    acl: list[dict[str, str]] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "metadata": self.metadata,
            "contentType": self.kind,
            "crc32c": crc32c(self.data),
            "acl": self.acl,
        }


@dataclass
class Upload:
    name: str
    described: dict[str, Any]
    match: str | None
    data: bytes = b""
    done: Stored | None = None


@dataclass
class Answer(Exception):
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeGcs:
    """One bucket, `bucket`. Conditions hold when an upload ends; `uniform` forbids ACLs."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.tokens: dict[str, set[str | None]] = {}  # by method
        self.page = 1000
        self.uniform = False
        self.lock = threading.Lock()
        self._numbers = itertools.count(1)

    def count(self, start: str) -> int:
        """How many requests began so: method, space, path."""
        return sum(line.startswith(start) for line in self.seen)

    def store(self, name: str, data: bytes, metadata: dict[str, str] | None = None) -> Stored:
        self.objects[name] = Stored(name, data, next(self._numbers), metadata or {}, "application/octet-stream")
        return self.objects[name]

    def fault(self, method: str, target: str, after: bool) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.where in target and fault.after == after:
                fault.times -= 1
                return fault
        return None

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        if "upload_id" in query:
            return self._session(method, query["upload_id"], headers, body)
        if parts.path.startswith(UPLOAD):
            return self._begin(query, {**json.loads(body), "contentType": headers["X-Upload-Content-Type"]})
        if not parts.path.startswith(API):
            return self._public(unquote(parts.path), query, headers)
        bucket, _, rest = parts.path.removeprefix(API).partition("/")
        if bucket != "bucket":
            return problem(404, "The specified bucket does not exist.")
        if not rest:
            return found({"name": bucket})
        if rest == "o":
            return self._list(query)
        name, acl = unquote(rest.removeprefix("o/").removesuffix("/acl")), rest.endswith("/acl")
        if name not in self.objects:
            return problem(404, "No such object")
        if method == "DELETE":
            self._check(name, query.get("ifGenerationMatch"))
            del self.objects[name]
            return Answer(204)
        if acl or method == "PATCH":
            return self._acl(method, name, body)
        if query.get("alt") == "media":
            self._check(name, query.get("ifGenerationMatch"))
            return self._media(name, headers)
        return found(self.objects[name].described())

    def _begin(self, query: dict[str, str], described: dict[str, Any]) -> Answer:
        name = query.get("name") or described["name"]
        number = f"session{next(self._numbers)}"
        self.uploads[number] = Upload(name, described, query.get("ifGenerationMatch"))
        return Answer(200, headers={"Location": f"{self.url}{UPLOAD}bucket/o?uploadType=resumable&upload_id={number}"})

    def _session(self, method: str, number: str, headers: Any, body: bytes) -> Answer:
        upload = self.uploads.get(number)
        if upload is None:
            return problem(404, "No such upload")
        if method == "DELETE":
            del self.uploads[number]
            return Answer(499)
        if upload.done:
            return found(upload.done.described())
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", headers["Content-Range"])
        assert span, headers["Content-Range"]
        start, last, size = span[1], span[2], int(span[3])
        if start is not None:
            if int(start) > len(upload.data) or int(last) - int(start) + 1 != len(body):
                return problem(400, "Invalid Content-Range")
            upload.data += body[len(upload.data) - int(start) :]
        if len(upload.data) < size:
            held = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            return Answer(308, headers=held)
        if (said := headers["X-Goog-Hash"]) and said != f"crc32c={crc32c(upload.data)}":
            return problem(400, "Provided CRC32C does not match")
        self._check(upload.name, upload.match)
        upload.done = self.store(upload.name, upload.data, upload.described.get("metadata"))
        upload.done.kind = upload.described["contentType"]
        return found(upload.done.described())

    def _check(self, name: str, match: str | None) -> None:
        there = self.objects[name].generation if name in self.objects else 0
        if match is not None and int(match) != there:
            raise problem(412, "At least one of the pre-conditions you specified did not hold.")

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        names = [
            name
            for name in sorted(self.objects)
            if name.startswith(prefix) and not (delimiter and delimiter in name[len(prefix) :])
        ]
        start = int(query.get("pageToken", 0))
        page: dict[str, Any] = {"items": [self.objects[name].described() for name in names[start : start + self.page]]}
        if start + self.page < len(names):
            page["nextPageToken"] = str(start + self.page)
        return found(page)

    def _acl(self, method: str, name: str, body: bytes) -> Answer:
        if self.uniform:
            return problem(400, "Cannot get legacy ACL for an object when uniform bucket-level access is enabled.")
        if method == "PATCH":
            self.objects[name].acl = json.loads(body)["acl"]
            return found(self.objects[name].described())
        return found({"items": self.objects[name].acl})

    def _public(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        name = path.removeprefix("/bucket/")
        if name not in self.objects:
            return problem(403, "Access denied.")
        everybody = any(entry["entity"] == "allUsers" for entry in self.objects[name].acl)
        return (
            self._media(name, headers) if everybody or "X-Goog-Signature" in query else problem(403, "Access denied.")
        )

    def _media(self, name: str, headers: Any) -> Answer:
        data = self.objects[name].data
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", headers["Range"] or "")
        if not span:
            return Answer(200, data)
        start, end = int(span[1]), int(span[2] or len(data) - 1)
        if start >= len(data):
            return problem(416, "The requested range cannot be satisfied.")
        piece = data[start : end + 1]
        return Answer(206, piece, {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/{len(data)}"})


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def found(resource: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(resource).encode(), {"Content-Type": "application/json"})


def problem(status: int, message: str) -> Answer:
    body = json.dumps({"error": {"code": status, "message": message}}).encode()
    return Answer(status, body, {"Content-Type": "application/json"})


@contextlib.contextmanager
def fake_gcs() -> Iterator[FakeGcs]:
    """A server while the block lasts."""
    fake = FakeGcs()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def serve(self) -> None:
            try:
                self._serve()
            except OSError:  # the client may leave
                self.close_connection = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            with fake.lock:
                fake.seen.append(f"{self.command} {self.path}")
                fake.tokens.setdefault(self.command, set()).add(self.headers["Authorization"])
                if fault := fake.fault(self.command, self.path, after=False):
                    if fault.kept and (upload := fake.uploads.get(self.path.rpartition("upload_id=")[2])):
                        upload.data += body[: fault.kept]
                    answer = Answer(fault.status, fault.body, fault.headers)
                else:
                    try:
                        answer = fake.answer(self.command, self.path, self.headers, body)
                    except Answer as raised:
                        answer = raised
                    if fault := fake.fault(self.command, self.path, after=True):
                        answer = Answer(fault.status, fault.body, fault.headers)
            self.close_connection = answer.status == 0 or "Content-Length" in answer.headers  # which may lie
            if answer.status == 0:
                return
            self.send_response(answer.status)
            length = {} if answer.status in (204,) else {"Content-Length": str(len(answer.body))}
            for name, value in {**length, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.serve)
    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
