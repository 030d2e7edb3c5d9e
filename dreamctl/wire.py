"""Connections that lead only where they may: a host's addresses are resolved, checked, and the checked one is dialled.

A name that answers differently the second time (DNS rebinding) gains nothing, since nobody asks it twice. TLS still
asks for the name's certificate. Stands below httpcore, which takes any object with these methods.
"""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dreamctl.addresses import private, refusal, unwrapped
from dreamctl.errors import ProviderError
from dreamctl.files import os_reason

_SLICE = 0.5  # seconds in which a stop is noticed
_MOST_ADDRESSES = 4
_PIECE = 1 << 16


class FetchFailed(ProviderError):
    """A URL that could not be fetched: the reason as the end of "URL …", advice as the hint.

    `passing`: it may work later. `wait`: the seconds that the server asked to wait for.
    """

    def __init__(self, message: str, *, hint: str, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.passing = passing
        self.wait = wait


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system's resolver orders them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to a numeric address. Raises OSError."""
    return socket.create_connection((address, port), timeout)


@functools.cache
def trusted() -> ssl.SSLContext:
    """The certificates that are trusted: certifi's, or those of SSL_CERT_FILE."""
    import httpx

    return httpx.create_ssl_context()


@dataclass(frozen=True)
class Network:
    """How hosts are found, reached and believed."""

    resolve: Callable[[str, int], Sequence[str]] = resolve
    dial: Callable[[str, int, float], socket.socket] = dial
    trust: Callable[[], ssl.SSLContext] = trusted


@dataclass(frozen=True)
class Limits:
    """How much of a server is borne: `bytes` after unpacking, seconds to connect, of silence, and in all."""

    bytes: int = 1 << 30
    connect: float = 10.0
    silence: float = 30.0
    total: float = 900.0


@dataclass
class Dialler:
    """httpcore's network backend for one download. `reached_private` is set when an inner address was reached."""

    network: Network
    limits: Limits
    allow_private: bool
    stop: threading.Event
    deadline: float = 0.0
    reached_private: bool = field(default=False, init=False)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Wire:
        error: OSError | None = None
        for address in self._checked(host, port)[:_MOST_ADDRESSES]:
            self.check()
            try:
                wait = max(0.01, min(self.limits.connect, self.deadline - time.monotonic()))
                connected = self.network.dial(address, port, wait)
            except OSError as raised:
                error = raised
                continue
            self.reached_private = private(unwrapped(address)) is not None
            return Wire(connected, self, host)
        reason = "has no address"
        if error:
            why = "in time" if isinstance(error, TimeoutError) else f"({os_reason(error)})"
            reason = f"did not answer {why}"
        raise FetchFailed(f"cannot be reached: {host} {reason}", hint=_network_hint(), passing=True)

    def _checked(self, host: str, port: int) -> list[str]:
        """The addresses of `host` that may be dialled."""
        try:
            addresses = [unwrapped(text) for text in self.network.resolve(host, port)]
        except (OSError, ValueError):  # it may pass: offline, some systems say that the name does not exist
            raise FetchFailed(
                f"cannot be reached: no host {host} is known", hint=_network_hint(), passing=True
            ) from None
        good = [str(address) for address in addresses if refusal(address, self.allow_private) is None]
        if good or not addresses:
            return good
        kind = refusal(addresses[0], self.allow_private)
        inner = private(addresses[0]) is not None
        raise FetchFailed(
            f"leads to {kind} ({addresses[0]}), which is not fetched from",
            hint="--allow-private allows it for URLs that you trust" if inner else "name a public address",
        )

    def check(self) -> None:
        """Raises FetchFailed when the time is over or the program is ending."""
        if self.stop.is_set():
            raise FetchFailed("was not fetched: stopped", hint="run the same command again")
        if time.monotonic() >= self.deadline:
            raise FetchFailed(
                f"took longer than {self.limits.total:g} seconds",
                hint="download it yourself and name the file",
                passing=True,
            )

    def sleep(self, seconds: float) -> None:
        self.stop.wait(seconds)


class Wire:
    """httpcore's network stream over one socket; no wait is longer than the limits, whoever waits for what."""

    def __init__(self, connected: socket.socket, dialler: Dialler, host: str) -> None:
        self._socket, self._dialler, self._host = connected, dialler, host

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silent_until = time.monotonic() + self._dialler.limits.silence
        while True:
            self._wait_at_most(silent_until)
            try:
                return self._socket.recv(min(max_bytes, _PIECE))
            except TimeoutError:
                continue
            except OSError as error:
                raise self._cut(error) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        silent_until = time.monotonic() + self._dialler.limits.silence
        while buffer:
            self._wait_at_most(silent_until)
            try:
                buffer = buffer[self._socket.send(buffer) :]
            except TimeoutError:
                continue
            except OSError as error:
                raise self._cut(error) from None

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Wire:
        self._socket.settimeout(max(0.01, min(self._dialler.limits.silence, self._dialler.deadline - time.monotonic())))
        try:
            return Wire(
                ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._dialler, self._host
            )
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise FetchFailed(
                f"cannot be trusted: {self._host} has no valid certificate ({error.verify_message})",
                hint="check the address; SSL_CERT_FILE names certificates of your own to trust",
            ) from None
        except OSError as error:
            self.close()
            raise self._cut(error) from None

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket):
            return self._socket
        return None

    def _wait_at_most(self, silent_until: float) -> None:
        self._dialler.check()
        now = time.monotonic()
        if now >= silent_until:
            seconds = f"{self._dialler.limits.silence:g} seconds"
            raise FetchFailed(f"stopped: {self._host} said nothing for {seconds}", hint="try again later", passing=True)
        self._socket.settimeout(max(0.001, min(_SLICE, silent_until - now, self._dialler.deadline - now)))

    def _cut(self, error: OSError) -> FetchFailed:
        reason = "did not answer in time" if isinstance(error, TimeoutError) else "cut the connection"
        return FetchFailed(f"cannot be fetched: {self._host} {reason}", hint="try again later", passing=True)


def _network_hint() -> str:
    import urllib.request

    if urllib.request.getproxies_environment():
        return "check the network; downloads go through no proxy: behind one, download the files and name them"
    return "check the address and the network"
