"""A real web server on loopback that answers as told, over http or https, and a network in which it is public."""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dreamctl.wire import Network

PUBLIC = "93.184.216.34"
Handle = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Answer:
    """One answer. `{self}` in a header is the site's URL."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """Answers by path; of several, the next at each request and the last again and again."""

    pages: dict[str, Sequence[Answer | Handle]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    scheme: str = "http"
    port: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def put(self, path: str, *answers: Answer | Handle) -> str:
        """Serve `answers` at `path`; returns its URL."""
        self.pages[path] = answers
        return self.url + path

    def count(self, path: str) -> int:
        return sum(seen == path for seen, _ in self.seen)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.seen.append((path, {name.lower(): value for name, value in request.headers.items()}))
        answers = self.pages.get(path, [Answer(b"no such page", 404)])
        chosen = answers[min(self.count(path), len(answers)) - 1]
        if not isinstance(chosen, Answer):
            chosen(request)
            return
        request.send_response(chosen.status)
        for name, value in {"Content-Length": str(len(chosen.body)), **chosen.headers}.items():
            request.send_header(name, value.replace("{self}", self.url))
        request.end_headers()
        request.wfile.write(chosen.body)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site while the block lasts."""
    site = Site(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the client may leave
                site.answer(self)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class World:
    """A network in which names have the addresses of a table, and every public address is the site's."""

    site: Site
    table: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    def resolve(self, host: str, port: int) -> list[str]:
        """The name's next answer, the last again and again."""
        self.asked.append(host)
        answers = self.table[host]
        return answers[min(self.asked.count(host), len(answers)) - 1]

    def dial(self, address: str, port: int, timeout: float) -> socket.socket:
        self.dialled.append((address, port))
        return socket.create_connection(("127.0.0.1", self.site.port), timeout)

    def network(self, trust: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> Network:
        return Network(self.resolve, self.dial, functools.cache(trust))


def write_certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that signs itself for `names` (hosts and addresses), and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    hosts: list[x509.GeneralName] = []
    for name in names:
        try:
            hosts.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            hosts.append(x509.DNSName(name))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
