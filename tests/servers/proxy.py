"""A TCP proxy on loopback in front of a server, whose faults can be changed while it runs."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

PIECE = 256 * 1024
TICK = 0.05  # seconds after which a connection that nothing passes over looks whether the proxy is still open
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, and throw away what was not sent


class Cut(Exception):
    """The connection ends here."""


class Proxy:
    """Forwards bytes both ways and reads none of them: a client's Host header names the proxy.

    The faults are attributes: `cut_after`, `cut_each`, `delay`, `stalled` and `refuse`. What happened is in `passed`
    (bytes of both directions), `cuts` and `connections`.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._cut_after: int | None = None
        self._since_cut = 0
        self.cut_each: int | None = None  # bytes after which each connection is reset
        self.delay = 0.0  # seconds before each piece that is forwarded
        self.stalled = False  # connections are accepted, and nothing is forwarded until it is False again
        self.refuse = 0  # so many of the next connections are reset at once
        self.cuts = self.connections = self._passed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def cut_after(self) -> int | None:
        """Each time that so many bytes have passed over all connections, the last one's connection is reset."""
        return self._cut_after

    @cut_after.setter
    def cut_after(self, count: int | None) -> None:
        with self._lock:
            self._cut_after, self._since_cut = count, 0

    @property
    def passed(self) -> int:
        """Bytes of both directions. Under the lock, so that what a client has received is counted."""
        with self._lock:
            return self._passed

    def close(self) -> None:
        """Reset what is open, and listen no more."""
        self._closing.set()
        self._accepting.join()
        for thread in self._serving:
            thread.join()

    def _accept(self) -> None:
        with self._listener:
            self._listener.settimeout(TICK)
            while not self._closing.is_set():
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    continue
                self.connections += 1
                if self.refuse > 0:
                    self.refuse -= 1
                    _reset(client)
                    continue
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                thread.start()
                self._serving = [*(old for old in self._serving if old.is_alive()), thread]

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _reset(client)
            return
        try:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._forward(_Connection(client, server))
        except (Cut, OSError):  # one end is gone: the other one hears it
            _reset(client)
            _reset(server)
        else:
            client.close()
            server.close()

    def _forward(self, connection: _Connection) -> None:
        """Until both ends have said that they are done. Raises Cut, and OSError where one of them resets."""
        while connection.open:
            ready = connection.ready()
            if self._closing.is_set():
                raise Cut
            if self.stalled:
                self._closing.wait(TICK)
                continue
            for way in ready:
                if not way.piece:
                    way.read()
                    if way.piece and self.delay:
                        self._closing.wait(self.delay)
                if way.piece:
                    self._send(way, connection)

    def _send(self, way: _Way, connection: _Connection) -> None:
        """Send what the other end takes of the piece, and cut where the limit is."""
        with self._lock:
            rests = [len(way.piece)]
            if self._cut_after is not None:
                rests.append(self._cut_after - self._since_cut)
            if self.cut_each is not None:
                rests.append(self.cut_each - connection.passed)
            sent = way.write(max(0, min(rests)))
            self._passed += sent
            self._since_cut += sent
            connection.passed += sent
            all_together = self._cut_after is not None and self._since_cut >= self._cut_after
            if all_together:
                self._since_cut = 0
            if all_together or (self.cut_each is not None and connection.passed >= self.cut_each):
                self.cuts += 1
                raise Cut


class _Way:
    """One direction of a connection; at most one piece of it is here."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.ended = False
        self.piece = memoryview(b"")
        self._buffer = memoryview(bytearray(PIECE))

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.piece = self._buffer[: self.source.recv_into(self._buffer)]
            if not self.piece:  # this end says no more, and may still listen
                self.ended = True
                self.target.shutdown(socket.SHUT_WR)

    def write(self, most: int) -> int:
        with contextlib.suppress(BlockingIOError):
            sent = self.target.send(self.piece[:most])
            self.piece = self.piece[sent:]
            return sent
        return 0


class _Connection:
    """Both ways. One thread serves them in turn, so that a reset does not wait for another thread's blocked call."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.passed = 0
        self._ways = (_Way(client, server), _Way(server, client))

    @property
    def open(self) -> bool:
        return not all(way.ended for way in self._ways)

    def ready(self) -> list[_Way]:
        """The ways on which something can be read or sent now; waits a moment for one."""
        poll = select.poll()
        wanted: dict[int, int] = {}
        for way in self._ways:
            if way.piece:
                wanted[way.target.fileno()] = wanted.get(way.target.fileno(), 0) | select.POLLOUT
            elif not way.ended:
                wanted[way.source.fileno()] = wanted.get(way.source.fileno(), 0) | select.POLLIN
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        happened = dict(poll.poll(TICK * 1000))
        return [
            way
            for way in self._ways
            if (happened.get(way.target.fileno(), 0) if way.piece else happened.get(way.source.fileno(), 0))
            and (way.piece or not way.ended)
        ]


@contextlib.contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy in front of the server at the URL `target`, while the block lasts."""
    running = Proxy(target)
    try:
        yield running
    finally:
        running.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    end.close()
