"""The beginning of what a URL gives, asked for as a stranger would: no credentials, and only where others get too.

Every redirect is checked like the first address. The URL may be a secret, and is never repeated.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import dreamctl
from dreamctl.addresses import private, refusal, unwrapped
from dreamctl.fetch import Patience
from dreamctl.http import backoff, passing, printable, quiet_loggers, retry_after
from dreamctl.urls import BadURL, check, public_name
from dreamctl.wire import Dialler, FetchFailed, Limits, Network

if TYPE_CHECKING:
    import httpcore

BEGINNING = 1 << 16
"""Bytes that are asked for; what is smaller comes as a whole."""
LIMITS = Limits(connect=10.0, silence=15.0, total=60.0)
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REACHABLE = "others must be able to fetch it: check the address and the network, then try again"
_AGAIN = "try again later"

log = logging.getLogger(__name__)


class Unfit(FetchFailed):
    """A URL that cannot do for others, whoever asks: its form, where it leads, where it redirects."""


@dataclass(frozen=True)
class Peek:
    """What a server answered: the beginning of the body, unpacked, and whether that is all of it.

    `url`: where it finally came from, a secret as the first one. `headers`: by their names in small letters. `inner`:
    the server is on this computer or in a private network.
    """

    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str] = field(repr=False)
    data: bytes = field(repr=False)
    whole: bool
    inner: bool


def peek(
    url: str, *, allow_private: bool = False, network: Network | None = None, patience: Patience | None = None
) -> Peek:
    """The server's answer to one GET; of whatever status, but one that may pass: then it is asked again.

    `patience.limits.total` counts for all tries together. Raises FetchFailed that ends the sentence "URL …", Unfit for
    one that cannot do.
    """
    patience = patience or Patience(LIMITS)
    deadline = time.monotonic() + patience.limits.total
    pause = patience.sleep or patience.stop.wait
    for attempt in range(patience.tries):
        try:
            answer = _follow(url, allow_private, network or Network(), patience, deadline)
            if passing(answer.status):
                asked = answer.headers.get("retry-after", "")
                wait = retry_after(asked) if asked.isascii() else None
                raise FetchFailed(f"was answered with status {answer.status}", hint=_AGAIN, passing=True, wait=wait)
            return answer
        except FetchFailed as error:
            seconds = backoff(attempt) if error.wait is None else error.wait
            if not error.passing or attempt + 1 == patience.tries or time.monotonic() + seconds >= deadline:
                raise
            log.info("%s %s: trying again in %.1f s", public_name(url), error.message, seconds)
            pause(seconds)
    raise AssertionError("unreachable")


def _follow(url: str, allow_private: bool, network: Network, patience: Patience, deadline: float) -> Peek:
    """The first answer that is no redirect."""
    any_port = True  # the user's own word may name one; a stranger's must not try doors
    for _ in range(_MOST_REDIRECTS + 1):
        target = _checked(url, any_port)
        answer = _ask(target, allow_private, network, patience, deadline)
        location = answer.headers.get("location", "")
        if answer.status not in _REDIRECTS or not location:
            return answer
        following = _joined(target, location)
        allow_private = allow_private and answer.inner  # nor lead into a private network
        any_port = allow_private or following.netloc == target.netloc
        url = str(following)
    raise Unfit(f"redirects more than {_MOST_REDIRECTS} times", hint="check the address")


def _checked(url: str, any_port: bool) -> Any:
    import httpx

    try:
        check(url, any_port)
        return httpx.URL(url)
    except BadURL as error:
        raise Unfit(error.message, hint=error.hint or "") from None
    except httpx.InvalidURL:
        raise Unfit("is not a URL", hint="check the address") from None


def _joined(base: Any, location: str) -> Any:
    import httpx

    try:
        target = base.join(location)
    except httpx.InvalidURL:
        raise Unfit("redirects to nowhere", hint="check the address") from None
    if base.scheme == "https" and target.scheme != "https":
        reason = f"redirects from https to {printable(target.scheme)[:20]}, which is not followed"
        raise Unfit(reason, hint="check the address")
    return target


def _ask(target: Any, allow_private: bool, network: Network, patience: Patience, deadline: float) -> Peek:
    """One GET, straight or through the user's proxy."""
    import httpcore

    quiet_loggers("httpcore")
    proxy = _proxy(target.scheme, target.host)
    addresses = _addresses(target, allow_private, network, needed=not proxy)
    inner = any(private(unwrapped(address)) for address in addresses)
    if inner or not proxy:
        network, proxy = Network(lambda host, port: addresses, network.dial, network.trust), ""
    dialler = Dialler(network, patience.limits, allow_private or bool(proxy), patience.stop, deadline)
    place = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
    try:
        with _pool(proxy, dialler) as pool:
            answer = pool.handle_request(httpcore.Request("GET", place, headers=_headers(target.netloc)))
            try:
                return _taken(answer, str(target), inner)
            finally:
                answer.close()
    except FetchFailed as error:
        raise FetchFailed(error.message, hint=_REACHABLE, passing=error.passing, wait=error.wait) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError) as error:
        reason = printable(str(error))[:120] or type(error).__name__
        raise FetchFailed(f"cannot be fetched: {reason}", hint=_AGAIN, passing=True) from None


def _headers(host: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", host),
        (b"User-Agent", f"dreamctl/{dreamctl.__version__}".encode()),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Range", f"bytes=0-{BEGINNING - 1}".encode()),
        (b"Connection", b"close"),
    ]


def _addresses(target: Any, allow_private: bool, network: Network, needed: bool) -> list[str]:
    """The addresses that may be dialled. Behind a proxy (not `needed`), names of the outside may be unknown here."""
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        found = [unwrapped(text) for text in network.resolve(target.host, port)]
    except (OSError, ValueError):
        found = []
    if not found and needed:
        reason = f"cannot be reached: no host {printable(target.host)} is known"
        raise FetchFailed(reason, hint=_REACHABLE, passing=True)
    good = [str(address) for address in found if refusal(address, allow_private) is None]
    if found and not good:
        kind = refusal(found[0], allow_private)
        raise Unfit(
            f"leads to {kind} ({found[0]}), which a provider's computer cannot reach", hint="name a public address"
        )
    return good


def _proxy(scheme: str, host: str) -> str:
    """The proxy that the environment names, "" for none."""
    import urllib.request

    proxies = urllib.request.getproxies_environment()
    named = proxies.get(scheme) or proxies.get("all") or ""
    if not named.startswith(("http://", "https://")) or urllib.request.proxy_bypass(host):
        return ""
    try:
        return named if urlsplit(named).port != 0 else ""
    except ValueError:
        return ""


def _pool(proxy: str, dialler: Dialler) -> httpcore.ConnectionPool:
    import httpcore

    trust = dialler.network.trust()
    if not proxy:
        return httpcore.ConnectionPool(ssl_context=trust, network_backend=dialler)  # type: ignore[arg-type]
    parts = urlsplit(proxy)
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return httpcore.HTTPProxy(place, proxy_auth=login, ssl_context=trust, network_backend=dialler)  # type: ignore[arg-type]


def _taken(answer: httpcore.Response, url: str, inner: bool) -> Peek:
    """The answer with as much of its body as is looked at: a server that knows no ranges sends all of it."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    data, whole = b"", True
    if answer.status not in _REDIRECTS:
        for piece in answer.iter_stream():
            data += piece
            if len(data) > BEGINNING:
                data, whole = data[:BEGINNING], False
                break
    if answer.status == 206:
        whole = headers.get("content-range", "").rpartition("/")[2] == str(len(data))
    if headers.get("content-encoding", "identity").lower() != "identity":
        data, whole = _unpacked(data), False
    return Peek(url, answer.status, headers, data, whole, inner)


def _unpacked(data: bytes) -> bytes:
    """The beginning of what comes packed though nobody asked for that; as it is where it is packed otherwise."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, BEGINNING)
    except zlib.error:
        return data
