"""A small HTTP server that takes POSTs from strangers: bounded in size, slowness and number, undisturbed by garbage."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import os_hint, os_reason
from dreamctl.http import printable

_TICK = 0.05  # seconds in which `stop` is noticed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PostLimits:
    """What is borne: bytes of a body, connections at once, and seconds that a sender has for all of its request."""

    bytes: int = 2_000_000
    connections: int = 16
    seconds: float = 5.0


class Taker(Protocol):
    """Whoever the POSTs are for. Both are called in threads, and raise nothing."""

    def known(self, path: str) -> bool:
        """Whether anything is taken at `path`; elsewhere the answer is 404, and no body is read."""

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """The status and the text of the answer."""


class PostBox:
    """The server on (host, port); it serves from when it is made until `stop`. Port 0 takes a free one: see `port`.

    Raises InvalidInput for an address that cannot be listened on, DreamctlError for one that is taken.
    """

    def __init__(self, address: tuple[str, int], taker: Taker, limits: PostLimits) -> None:
        host, port = address
        try:
            if not 0 <= port <= 65535:  # the system's resolver may take it modulo 65536
                raise OverflowError
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(found[0], found[4], taker, limits)
        except (OSError, OverflowError, UnicodeError) as error:
            raise _no_listening(host, port, error) from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_TICK,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _no_listening(host: str, port: int, error: Exception) -> DreamctlError:
    reason = os_reason(error) if isinstance(error, OSError) else "that is no address"
    where = f"cannot listen on {printable(host) or 'any address'}, port {port}: {reason}"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        return DreamctlError(where, hint=os_hint(error) or "choose another port, or an address of this computer")
    return InvalidInput(where, hint="name an address of this computer and a port from 1 to 65535")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow sender must not hold the program up
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, family: int, address: Any, taker: Taker, limits: PostLimits) -> None:
        self.address_family = family
        self.taker, self.limits = taker, limits
        self._free = threading.Semaphore(limits.connections)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the network for this computer's name
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection broke off", exc_info=True)


class _Hurried(io.RawIOBase):
    """A connection that is read until a moment, however slowly it gives; after it every read raises TimeoutError."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # so that a sender that asks whether to go on is answered

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hurried(self.connection, time.monotonic() + self.server.limits.seconds))
        self._unread = True

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.close_connection = True
        if self.command != "POST":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        return True

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        if not self.server.taker.known(path):
            self._answer(HTTPStatus.NOT_FOUND)
            return
        body = self._body()
        if body is not None:
            self._answer(*self.server.taker.take(path, dict(self.headers.items()), body))

    def _body(self) -> bytes | None:
        """The body; None where it was refused."""
        length = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not length:
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif not (length.isascii() and length.isdigit()):
            self._answer(HTTPStatus.BAD_REQUEST)
        elif len(length) > 12 or int(length) > self.server.limits.bytes:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self._read(int(length))
            if body is not None:
                self._unread = False
            return body
        return None

    def _read(self, length: int) -> bytes | None:
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            self._answer(HTTPStatus.REQUEST_TIMEOUT)
            return None
        if len(body) < length:
            self._answer(HTTPStatus.BAD_REQUEST)
            return None
        return body

    def _answer(self, status: int, text: str = "") -> None:
        body = text.encode()
        self.send_response_only(status)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The library's own refusals, without the page that repeats what was sent."""
        self._answer(code)

    def finish(self) -> None:
        """Closed with bytes unread, a connection is reset, and the sender may never see the answer."""
        with contextlib.suppress(OSError):
            if self._unread:
                self.connection.shutdown(socket.SHUT_WR)
                while self.rfile.read1(1 << 16):
                    pass
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the path is a secret."""
