"""What Replicate's control plane stands on: requests and replies, their faults, files that are fetched in ranges."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import email.utils
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came. `query`: the last value of each name; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def form(self) -> dict[str, tuple[str, str, bytes]]:
        """The parts of a multipart form by name: file name, media type, bytes."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        parts = {}
        for part in message.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts[name] = part.get_filename() or "", part.get_content_type(), content
        return parts


@dataclass(frozen=True)
class Reply:
    """An answer: bytes, or what becomes JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The reply is a problem in Replicate's words."""

    def __init__(self, status: int, detail: str, title: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.reply = problem(status, detail, title, headers)


def problem(status: int, detail: str, title: str = "", headers: Mapping[str, str] | None = None) -> Reply:
    body = {**({"title": title} if title else {}), "detail": detail, "status": status}
    return Reply(status, body, {"Content-Type": "application/problem+json", **(headers or {})})


@dataclass
class Fault:
    """What the next `times` requests of a route get. `status` 0: a closed connection; None: the true answer.

    `handled`: only after the request has been carried out. `cut`: the answer ends after so many bytes of its body.
    """

    status: int | None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    handled: bool = False
    cut: int | None = None


@dataclass
class Blob:
    """A file that is fetched: its ETag is of its bytes."""

    data: bytes
    media: str = "application/octet-stream"

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


def fault_reply(fault: Fault) -> Reply:
    """What a fault answers: a problem in Replicate's words, or its own body."""
    assert fault.status
    if fault.body is not None:
        return Reply(fault.status, fault.body, fault.headers)
    return problem(fault.status, "the test wants it so", headers=fault.headers)


def served(blob: Blob, request: Request, heeds_if_range: bool) -> Reply:
    """The file, or the range of it that is asked for (RFC 9110; only `bytes=FIRST-[LAST]`)."""
    size = len(blob.data)
    headers = {"Content-Type": blob.media, "ETag": blob.etag, "Accept-Ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    known = request.headers.get("if-range")
    if not wanted or (heeds_if_range and known and known != blob.etag):
        return Reply(200, blob.data, headers)
    first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
    if first >= size:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(206, blob.data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})


Answering = Callable[[Request], tuple[Fault, Callable[[], Reply]]]
"""The fault of a request (see `Fault`), and what carries it out and answers it."""


class Door:
    """An HTTP server on a port of loopback while the block lasts."""

    def __init__(self, answering: Answering, clock: Callable[[], float]) -> None:
        self._server = _Server(("127.0.0.1", 0), _handler(answering, clock))
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Door:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...


def _handler(answering: Answering, clock: Callable[[], float]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            self.close_connection = True
            fault, work = answering(self._request())
            with contextlib.suppress(OSError):  # the client may leave
                true = work() if fault.status is None or fault.handled else None
                if fault.status == 0:
                    self._hang_up()
                else:
                    self._send(fault, true if true and fault.status is None else fault_reply(fault))

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 (the library's names)

        def _request(self) -> Request:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            return Request(self.command, parts.path, query, headers, self._body())

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _send(self, fault: Fault, reply: Reply) -> None:
            plain = reply.body is None or isinstance(reply.body, bytes)
            body = (reply.body or b"") if plain else json.dumps(reply.body).encode()
            kind = {} if plain else {"Content-Type": "application/json"}
            self.send_response_only(reply.status)
            date = email.utils.formatdate(clock(), usegmt=True)
            headers = {"Date": date, **kind, **reply.headers, **(fault.headers if fault.status is None else {})}
            for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD" and reply.status != 204:
                self.wfile.write(body if fault.cut is None else body[: fault.cut])
            if fault.cut is not None:
                self.wfile.flush()
                self._hang_up()

        def _hang_up(self) -> None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler
