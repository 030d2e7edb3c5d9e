"""The proxy's faults really happen, and without them nothing is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers.proxy import Proxy, proxy

MIB = 1024 * 1024


@pytest.fixture
def echo() -> Iterator[Proxy]:
    """A proxy in front of a server that sends back what it gets, and ends when the client has ended."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(MIB):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with proxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as running:
        yield running
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(to: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(to.url.rsplit(":", 1)[1])), timeout=60)


def exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := connection.recv(count - len(got))):
        got += data
    return got


def test_everything_passes_both_ways_at_once_and_half_closed(echo: Proxy) -> None:
    content = bytes(range(256)) * (64 * 1024)  # 16 MiB: more than all buffers between
    with connect(echo) as connection:

        def send() -> None:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert exactly(connection, len(content)) == content
        assert connection.recv(1) == b""
        sender.join()
    assert (echo.passed, echo.cuts, echo.connections) == (2 * len(content), 0, 1)


def test_a_connection_is_reset_each_time_so_much_has_passed_over_all(echo: Proxy) -> None:
    with connect(echo) as first, connect(echo) as second:
        echo.cut_after = 100
        first.sendall(b"x" * 30)
        assert exactly(first, 30) == b"x" * 30
        second.sendall(b"y" * 30)
        with pytest.raises(ConnectionResetError):
            assert exactly(second, 10) == b"y" * 10  # the hundredth byte is the last one
            second.recv(1)
        first.sendall(b"x")
        assert exactly(first, 1) == b"x"  # the other one stays
        first.sendall(b"x" * 98)
        with pytest.raises(ConnectionResetError):
            exactly(first, 98)
    assert (echo.cuts, echo.passed) == (2, 200)


def test_each_connection_is_reset_after_so_much(echo: Proxy) -> None:
    echo.cut_each = 100
    for _ in range(2):
        with connect(echo) as connection, pytest.raises(ConnectionResetError):
            connection.sendall(b"x" * 60)
            exactly(connection, 60)
    echo.cut_each = None
    with connect(echo) as connection:
        connection.sendall(b"x" * 60)
        assert exactly(connection, 60) == b"x" * 60
    assert (echo.cuts, echo.passed, echo.connections) == (2, 320, 3)


def test_the_next_connections_are_refused(echo: Proxy) -> None:
    echo.refuse = 2
    for _ in range(2):
        with pytest.raises(ConnectionResetError), connect(echo) as connection:
            connection.recv(1)
    with connect(echo) as connection:
        connection.sendall(b"x")
        assert exactly(connection, 1) == b"x"
    assert (echo.refuse, echo.connections) == (0, 3)


def test_nothing_passes_while_it_is_stalled(echo: Proxy) -> None:
    with connect(echo) as connection:
        connection.sendall(b"x")
        assert exactly(connection, 1) == b"x"
        echo.stalled = True
        connection.sendall(b"x")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert echo.passed == 2
        echo.stalled = False
        connection.settimeout(60)
        assert exactly(connection, 1) == b"x"


def test_each_piece_is_delayed(echo: Proxy) -> None:
    echo.delay = 0.1
    with connect(echo) as connection:
        start = time.monotonic()
        connection.sendall(b"x")
        assert exactly(connection, 1) == b"x"
        assert time.monotonic() - start >= 0.2


def test_without_a_server_connections_are_reset(echo: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with proxy(url) as dead, pytest.raises(ConnectionResetError), connect(dead) as connection:
        connection.recv(1)


def test_when_it_ends_open_connections_are_reset_and_no_thread_stays() -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:
        with proxy(f"http://127.0.0.1:{server.getsockname()[1]}") as running:
            connection = connect(running)
            connection.sendall(b"x")
            accepted, _ = server.accept()
            accepted.recv(1)
        with accepted, connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(running)
    assert not set(threading.enumerate()) - before
