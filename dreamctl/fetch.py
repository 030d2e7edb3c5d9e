"""One URL to one file, from servers that may be slow, broken or hostile.

http and https only; every redirect is checked like the first address; bytes are counted as they come, after unpacking.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dreamctl
from dreamctl.http import backoff, passing, printable, quiet_loggers, retry_after
from dreamctl.urls import BadURL, check, public_name
from dreamctl.wire import Dialler, FetchFailed, Limits, Network

if TYPE_CHECKING:
    import httpcore

TRIES = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_PIECE = 1 << 20
_HEADERS = {
    "User-Agent": f"dreamctl/{dreamctl.__version__}",
    "Accept": "image/*, application/zip, */*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_AGAIN = "try again later"
_REFUSED = {
    401: ("is refused without a password (401)", "download it yourself and name the file"),
    403: ("is refused by the server (403)", "a link that has run out must be made anew; does it open in a browser?"),
    404: ("is not there (404)", "check the address"),
    410: ("is gone (410)", "take it out of the list"),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What an earlier answer said of itself, to ask whether it changed. `place` is where it finally came from."""

    place: str
    etag: str = ""
    modified: str = ""

    def conditions(self, url: str) -> dict[str, str]:
        """The headers that ask for changes only, where `url` is that place: another server's tags mean nothing."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in headers.items() if value} if place_of(url) == self.place else {}


@dataclass(frozen=True)
class Fetched:
    """What came: `sha256` and `bytes` of the file, the URL it finally came from, and what the server calls the file."""

    sha256: str
    bytes: int
    url: str
    disposition: str
    known: Known


@dataclass(frozen=True)
class Patience:
    """How often and how long; `stop` ends all waiting, `sleep` waits so many seconds between two tries."""

    limits: Limits = field(default_factory=Limits)
    tries: int = TRIES
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], object] | None = None


def fetch(
    url: str,
    path: Path,
    *,
    known: Known | None = None,
    allow_private: bool = False,
    network: Network | None = None,
    patience: Patience | None = None,
) -> Fetched | None:
    """Write what `url` holds to `path` (not atomically); None where it is what is `known`, and nothing is written.

    Tried again, with pauses, where the trouble may pass. Raises FetchFailed that ends the sentence "URL …", and
    OSError where `path` cannot be written.
    """
    patience = patience or Patience()
    pause = patience.sleep or patience.stop.wait
    for attempt in range(patience.tries):
        try:
            return _attempt(url, path, known, allow_private, network or Network(), patience)
        except FetchFailed as error:
            if not error.passing or attempt + 1 == patience.tries or patience.stop.is_set():
                raise
            seconds = backoff(attempt) if error.wait is None else error.wait
            log.info("%s %s: trying again in %.1f s", public_name(url), error.message, seconds)
            pause(seconds)
    raise AssertionError("unreachable")


def place_of(url: str) -> str:
    """Where a URL leads, without its query, as a digest: it may be kept."""
    return hashlib.sha256(url.partition("#")[0].partition("?")[0].encode()).hexdigest()


def _attempt(
    url: str, path: Path, known: Known | None, allow_private: bool, network: Network, patience: Patience
) -> Fetched | None:
    import httpcore

    quiet_loggers("httpcore")
    dialler = Dialler(network, patience.limits, allow_private, patience.stop)
    dialler.deadline = time.monotonic() + patience.limits.total
    try:
        with httpcore.ConnectionPool(ssl_context=network.trust(), network_backend=dialler) as pool:  # type: ignore[arg-type]
            answer, place = _follow(pool, dialler, url, known)
            try:
                return _taken(answer, place, path, patience.limits)
            finally:
                answer.close()
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise FetchFailed(
            f"cannot be fetched: the answer is broken ({printable(str(error))[:120]})", hint=_AGAIN, passing=True
        ) from None


def _follow(
    pool: httpcore.ConnectionPool, dialler: Dialler, url: str, known: Known | None
) -> tuple[httpcore.Response, str]:
    """The first answer that is no redirect, and its URL."""
    import httpcore

    any_port = dialler.allow_private
    for _ in range(_MOST_REDIRECTS + 1):
        target = _checked(url, any_port)
        headers = {**_HEADERS, "Host": target.netloc.decode(), **(known.conditions(url) if known else {})}
        place = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
        answer = pool.handle_request(
            httpcore.Request("GET", place, headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        )
        location = _header(answer, "location")
        if answer.status not in _REDIRECTS or not location:
            return answer, url
        answer.close()
        url = _joined(target, location)
        # A stranger's redirect must not lead into the user's own network, whatever the user allowed by name.
        dialler.allow_private = dialler.allow_private and dialler.reached_private
    raise FetchFailed(f"redirects more than {_MOST_REDIRECTS} times", hint="check the address")


def _checked(url: str, any_port: bool) -> Any:
    import httpx

    try:
        check(url, any_port)
        return httpx.URL(url)
    except BadURL as error:
        raise FetchFailed(error.message, hint=error.hint or "") from None
    except httpx.InvalidURL:
        raise FetchFailed("is not a URL", hint="check the address") from None


def _joined(base: Any, location: str) -> str:
    import httpx

    try:
        target = base.join(location)
    except httpx.InvalidURL:
        raise FetchFailed("redirects to nowhere", hint="check the address") from None
    if base.scheme == "https" and target.scheme != "https":
        raise FetchFailed(
            f"redirects from https to {printable(target.scheme)}, which is not followed", hint="check the address"
        )
    return str(target)


def _taken(answer: httpcore.Response, url: str, path: Path, limits: Limits) -> Fetched | None:
    """Write the body of a good answer; None for "not modified"."""
    status = answer.status
    if status == 304:
        return None
    if status != 200:
        said = _REFUSED.get(status)
        wait = retry_after(_header(answer, "retry-after"))
        if said:
            raise FetchFailed(said[0], hint=said[1])
        raise FetchFailed(
            f"was answered with status {status}",
            hint=_AGAIN if passing(status) else "check the address",
            passing=passing(status),
            wait=wait,
        )
    length = _header(answer, "content-length")
    if length.isdigit() and int(length) > limits.bytes:
        raise _too_large(limits)
    sha256, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in _unpacked(answer.iter_stream(), _header(answer, "content-encoding").lower()):
            size += len(piece)
            if size > limits.bytes:
                raise _too_large(limits)
            sha256.update(piece)
            file.write(piece)
    # An answer that ends with its connection may have been cut off: it is asked for again as a whole.
    framed = bool(length) or "chunked" in _header(answer, "transfer-encoding").lower()
    known = Known(place_of(url), *((_header(answer, "etag"), _header(answer, "last-modified")) if framed else ()))
    return Fetched(sha256.hexdigest(), size, url, _header(answer, "content-disposition"), known)


def _unpacked(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body without its content encoding, in pieces of at most a mebibyte, however tightly it was packed."""
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise FetchFailed(
            f"comes packed as {printable(encoding)[:40]}, which was not asked for",
            hint="download it yourself and name the file",
        )
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, by how it begins
    try:
        for piece in pieces:
            while piece and not unpacker.eof:
                yield unpacker.decompress(piece, _PIECE)
                piece = unpacker.unconsumed_tail
        yield unpacker.flush(_PIECE)
    except zlib.error:
        raise FetchFailed("is packed wrongly", hint="download it yourself and name the file") from None
    if not unpacker.eof:
        raise FetchFailed("is cut off", hint=_AGAIN, passing=True)


def _too_large(limits: Limits) -> FetchFailed:
    size = f"{limits.bytes >> 20} MiB" if limits.bytes >= 1 << 20 else f"{limits.bytes} bytes"
    return FetchFailed(f"is larger than {size}", hint="download it yourself and name the file")


def _header(answer: httpcore.Response, name: str) -> str:
    value = next((value for key, value in answer.headers if key.lower() == name.encode()), b"")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
