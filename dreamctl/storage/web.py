"""Bringing what lies at a URL into a file, as an object of a storage is brought: resumable, verified, atomic.

The URL may be a secret, and is never repeated; a token goes to its own origin alone, not where it redirects to.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamctl.errors import ProviderError
from dreamctl.http import may_carry_token, passing, remember_secret, retry_after
from dreamctl.storage.base import Changed, Passing, Progress, StoredObject
from dreamctl.storage.receiving import receive
from dreamctl.urls import BadURL, check
from dreamctl.wire import Dialler, FetchFailed, Limits, Network

if TYPE_CHECKING:
    import httpcore

_TRIES = 3
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({401, 403, 404, 410})
_LIMITS = Limits(bytes=1 << 40, total=24 * 3600.0)
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]*/([0-9]{1,15})")
_LENGTH = re.compile(r"[0-9]{1,15}")


class LinkDead(ProviderError):
    """The URL gives nothing any more: its signature ran out, or what was there was deleted."""

    code = "link_dead"


def bring(
    url: str,
    target: Path,
    *,
    token: str | None = None,
    sha256: str = "",
    allow_private: bool = False,
    progress: Progress | None = None,
    network: Network | None = None,
) -> StoredObject:
    """Write what `url` gives to `target`; returns its size and digest.

    What an earlier try left is gone on with, where the server still has the same (by ETag and size). Raises LinkDead,
    ProviderError where it cannot be fetched or has not the digest `sha256`, DiskFull before anything is written.
    """
    if token:
        remember_secret(token)
        if not may_carry_token(url):
            raise ProviderError("the provider's URL of the result is not https", hint="nothing was fetched")
    place = _Place(url, token, allow_private, network or Network())
    for attempt in range(_TRIES):
        size, etag = place.look()
        stored = StoredObject("the result", size, sha256, etag or str(size))
        try:
            return receive(stored, target, partial(place.pieces, size, etag), progress)
        except Changed:
            if attempt + 1 == _TRIES:
                raise ProviderError("the result changes while it is fetched", hint="try again later") from None
    raise AssertionError("unreachable")


class _Place:
    """A URL, and how it is asked."""

    def __init__(self, url: str, token: str | None, allow_private: bool, network: Network) -> None:
        self._url, self._token, self._allow_private, self._network = url, token, allow_private, network

    def look(self) -> tuple[int, str]:
        """Size and ETag. Raises LinkDead, ProviderError."""
        for attempt in range(_TRIES):
            try:
                with self._answer(0, 0) as answer:
                    return _size(answer), _header(answer, "etag")
            except Passing as trouble:
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(trouble.wait if trouble.wait is not None else 0.5 * (attempt + 1))
        raise AssertionError("unreachable")

    def pieces(self, size: int, etag: str, start: int) -> Iterator[bytes]:
        """The bytes from `start` on. Raises Changed where the server has something else now, ProviderError for more."""
        with self._answer(start, None, etag) as answer:
            if _size(answer, start) != size or (etag and _header(answer, "etag") not in ("", etag)):
                raise Changed("the result is another one now")
            skip = start if answer.status == 200 else 0  # a server that knows no ranges begins anew
            at, last = start - skip, b""
            for piece in answer.iter_stream():
                at += len(piece)
                if at > size:
                    raise ProviderError("the server sends more than it said that the result is", hint="try again later")
                if at < size:
                    yield piece[skip:]
                else:
                    last = piece[skip:]  # is given when nothing follows, so that what is too long never looks whole
                skip = max(0, skip - len(piece))
            yield last

    @contextmanager
    def _answer(self, start: int, end: int | None, etag: str = "") -> Iterator[httpcore.Response]:
        """The server's answer, its redirects followed."""
        import httpcore

        dialler = Dialler(self._network, _LIMITS, self._allow_private, threading.Event())
        dialler.deadline = time.monotonic() + _LIMITS.total
        headers = {"Range": f"bytes={start}-{'' if end is None else end}", "Accept-Encoding": "identity"}
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
        try:
            with httpcore.ConnectionPool(ssl_context=self._network.trust(), network_backend=dialler) as pool:  # type: ignore[arg-type]
                answer = self._follow(pool, dialler, headers)
                try:
                    yield answer
                finally:
                    answer.close()
        except FetchFailed as error:
            if error.passing:
                raise Passing(f"the result {error.message}", hint=error.hint, wait=error.wait) from None
            raise ProviderError(f"the result {error.message}", hint=error.hint) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise Passing(f"the result cannot be fetched: the line was cut ({type(error).__name__})") from None

    def _follow(self, pool: httpcore.ConnectionPool, dialler: Dialler, headers: dict[str, str]) -> httpcore.Response:
        import httpcore
        import httpx

        url, token = self._url, self._token
        origin = httpx.URL(url)
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                check(url, any_port=True)
                target = httpx.URL(url)
            except (BadURL, httpx.InvalidURL):
                raise ProviderError("the provider's URL of the result is none that can be fetched") from None
            same = (target.scheme, target.host, target.port) == (origin.scheme, origin.host, origin.port)
            sent = {"Host": target.netloc.decode(), **headers}
            if token and same:
                sent["Authorization"] = f"Bearer {token}"
            place = httpcore.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            )
            answer = pool.handle_request(
                httpcore.Request(
                    "GET", place, headers=[(name.encode(), value.encode()) for name, value in sent.items()]
                )
            )
            location = _header(answer, "location")
            if answer.status not in _REDIRECTS or not location:
                _refuse(answer)
                return answer
            answer.close()
            try:
                joined = target.join(location)
            except httpx.InvalidURL:
                raise ProviderError("the result's URL redirects to none that can be fetched") from None
            if target.scheme == "https" and joined.scheme != "https":
                raise ProviderError("the result's URL redirects from https to http, which is not followed")
            dialler.allow_private = dialler.allow_private and dialler.reached_private
            url = str(joined)
        raise ProviderError("the result's URL redirects in a circle")


def _refuse(answer: httpcore.Response) -> None:
    """Raises for an answer that holds nothing."""
    if answer.status in (200, 206):
        return
    wait = retry_after(_header(answer, "retry-after"))
    answer.close()
    if answer.status in _GONE:
        raise LinkDead(f"the result's URL gives nothing any more ({answer.status})")
    if passing(answer.status):
        raise Passing(f"the result cannot be fetched now ({answer.status})", wait=wait)
    raise ProviderError(f"the result cannot be fetched: the server answered {answer.status}")


def _size(answer: httpcore.Response, start: int = 0) -> int:
    """The size of the whole. Raises ProviderError where the server does not say it, or begins elsewhere."""
    part = _RANGE.fullmatch(_header(answer, "content-range")) if answer.status == 206 else None
    if part and int(part[1]) != start:
        raise ProviderError("the server sends another part of the result than was asked for", hint="try again later")
    length = _header(answer, "content-length") if answer.status == 200 else part[2] if part else ""
    if not _LENGTH.fullmatch(length) or int(length) > _LIMITS.bytes:
        raise ProviderError("the server does not say how large the result is", hint="try again later")
    return int(length)


def _header(answer: Any, name: str) -> str:
    value = next((value for key, value in answer.headers if key.lower() == name.encode()), b"")
    return str(value.decode("latin-1"))
