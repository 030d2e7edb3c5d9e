"""Webhooks: signatures, repeated messages, the secret path, and the server against good, slow and hostile senders."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import queue
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection

import pytest

from dreamctl import paths
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.postbox import PostLimits
from dreamctl.webhooks import (
    TOLERANCE,
    Hint,
    Receiver,
    Rejected,
    Seen,
    WrongSignature,
    path_secret,
    receiver_paths,
    verify,
)

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another key of thirty two bytes!").decode()
NOW = 1_700_000_000.0
SECRET = "s" * 43
HOST = "127.0.0.1"


def signed(body: bytes, key: str = KEY, identity: str = "msg_1", at: float = NOW) -> dict[str, str]:
    """The headers of a message, made apart from the code under test."""
    content = f"{identity}.{int(at)}.".encode() + body
    made = hmac.new(base64.b64decode(key.removeprefix("whsec_")), content, "sha256").digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": f"v1,{base64.b64encode(made).decode()}",
    }


# signatures


def test_the_example_of_the_standard_is_good() -> None:
    headers = {
        "Webhook-ID": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "Webhook-Timestamp": "1614265330",
        "Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(KEY, headers, b'{"test": 2432232314}', 1614265331) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@pytest.mark.parametrize(
    "more",
    ["v1,AAAA {}", "v2,x {}", "{} v1", "nonsense v1,, {} ,", "v1a,\xff\xfe {}", "v1,{}".format("A" * 44) + " {}"],
)
def test_any_of_several_signatures_may_fit(more: str) -> None:
    headers = signed(b"{}")
    headers["webhook-signature"] = more.format(headers["webhook-signature"])
    assert verify(KEY, headers, b"{}", NOW) == "msg_1"


@pytest.mark.parametrize(
    "signatures",
    ["v1,AAAA", "v2,{}", "v1", ",", "v1,\xff", "v1a,{}", "V1,{}", "v1,{} tail".replace("{}", "x"), "v1,{}="],
)
def test_a_signature_that_does_not_fit(signatures: str) -> None:
    headers = signed(b"{}")
    headers["webhook-signature"] = signatures.format(headers["webhook-signature"].removeprefix("v1,"))
    with pytest.raises(WrongSignature):
        verify(KEY, headers, b"{}", NOW)


@pytest.mark.parametrize("changed", [{"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(NOW) + 1)}])
def test_id_time_and_body_are_signed(changed: Mapping[str, str]) -> None:
    with pytest.raises(WrongSignature):
        verify(KEY, {**signed(b"{}"), **changed}, b"{}", NOW)
    with pytest.raises(WrongSignature):
        verify(KEY, signed(b"{}"), b"{} ", NOW)
    with pytest.raises(WrongSignature):
        verify(OTHER, signed(b"{}"), b"{}", NOW)


@pytest.mark.parametrize(("late", "says"), [(TOLERANCE + 1, "5 min 1 s ago"), (-TOLERANCE - 1, "in the future")])
def test_old_messages_and_clocks_that_differ(late: float, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        verify(KEY, signed(b"{}"), b"{}", NOW + late)
    for fine in (TOLERANCE, -TOLERANCE):
        assert verify(KEY, signed(b"{}"), b"{}", NOW + fine)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_a_header_that_is_missing_is_named(name: str, value: str | None) -> None:
    headers: dict[str, str] = {**signed(b"{}"), name: value or ""}
    if value is None:
        del headers[name]
    with pytest.raises(Rejected, match=f"has no header {name}"):
        verify(KEY, headers, b"{}", NOW)


@pytest.mark.parametrize("stamp", ["now", "1e9", "-1", "²", "1.5", "9" * 5000])
def test_a_time_that_is_none(stamp: str) -> None:
    with pytest.raises(Rejected, match="no number of seconds"):
        verify(KEY, {**signed(b"{}"), "webhook-timestamp": stamp}, b"{}", NOW)


@pytest.mark.parametrize("key", ["", "whsec_", "whsec_é", "whsec_A", "whsec_not base64!"])
def test_a_key_that_is_none_accepts_nothing(key: str) -> None:
    with pytest.raises(Rejected, match="signing key") as raised:
        verify(key, signed(b"{}"), b"{}", NOW)
    assert "base64!" not in raised.value.message


# repeated messages


def test_an_id_is_new_once_as_long_as_its_signature_counts() -> None:
    seen = Seen()
    assert [seen.first("a", NOW), seen.first("a", NOW), seen.first("b", NOW)] == [True, False, True]
    # It may have been signed by a clock that is ahead by the tolerance, and then counts for twice as long.
    assert not seen.first("a", NOW + 2 * TOLERANCE)
    assert seen.first("a", NOW + 2 * TOLERANCE + 100)


def test_the_memory_of_ids_is_bounded() -> None:
    seen = Seen(most=3)
    assert all(seen.first(str(number), NOW) for number in range(5))
    assert [seen.first(str(number), NOW) for number in (4, 3, 2)] == [False, False, False]
    assert seen.first("0", NOW)  # the oldest had to go


# the secret path


def test_the_secret_path_is_made_once_and_for_the_user_alone(caplog: pytest.LogCaptureFixture) -> None:
    first = path_secret()
    file = paths.data_dir() / "webhook-secret"
    assert first == path_secret() == file.read_text().strip() and len(first) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert receiver_paths() == {"replicate": "/replicate", "runpod": f"/runpod/{first}"}
    file.chmod(0o644)
    assert path_secret() == first and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text and first not in caplog.text


def test_processes_that_make_it_at_the_same_time_end_with_one_secret() -> None:
    program = "from dreamctl.webhooks import path_secret; input(); print(path_secret())"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    assert len({process.communicate()[0] for process in started}) == 1


def test_a_file_that_holds_no_secret_is_said(tmp_path: object) -> None:
    paths.data_dir().mkdir(parents=True)
    (paths.data_dir() / "webhook-secret").write_text("short")
    with pytest.raises(DreamctlError, match="holds no secret path") as raised:
        path_secret()
    assert "delete it" in str(raised.value.hint)


# the receiver


@dataclass
class Ear:
    """A receiver on loopback, and what it is asked for and tells."""

    port: int
    hints: queue.Queue[Hint]
    keys: list[str | None]
    asked: list[bool] = field(default_factory=list)

    def post(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, str]:
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send anything, and read until the other end closes."""
        with socket.create_connection((HOST, self.port), timeout=10) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: _received(connection), b""))

    def told(self) -> list[Hint]:
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.hints.get_nowait())
        return found


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.fixture
def listening() -> Iterator[Callable[..., Ear]]:
    with starting() as start:
        yield start


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    """One for all tests that leave nothing behind."""
    with starting() as start:
        yield start(seconds=1)


@contextlib.contextmanager
def starting() -> Iterator[Callable[..., Ear]]:
    with contextlib.ExitStack() as stack:

        def start(keys: list[str | None] | None = None, most: int = 100, **limits: float) -> Ear:
            ear = Ear(0, queue.Queue(most), keys or [KEY])

            def signing_key(again: bool) -> str | None:
                ear.asked.append(again)
                return ear.keys.pop(0) if again and len(ear.keys) > 1 and ear.keys else ear.keys[0]

            receiver = Receiver(
                (HOST, 0),
                ear.hints,
                path_secret=SECRET,
                signing_key=signing_key,
                limits=PostLimits(**limits),  # type: ignore[arg-type]
                clock=lambda: NOW,
            )
            ear.port = stack.enter_context(receiver).port
            return ear

        yield start


def test_a_signed_message_becomes_a_hint_once(listening: Callable[..., Ear]) -> None:
    ear = listening()
    body = json.dumps({"id": "abc", "status": "succeeded", "output": None}).encode()
    for _ in range(3):
        assert ear.post("/replicate", body, signed(body)) == (200, "")
    assert ear.told() == [Hint("replicate", "abc")]
    assert ear.post("/replicate?x=1", body, signed(body, identity="msg_2"))[0] == 200
    assert ear.told() == [Hint("replicate", "abc")]


def test_what_is_not_signed_well_is_refused_and_has_no_effect(
    listening: Callable[..., Ear], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ear = listening()
    body = b'{"id":"abc"}'
    assert ear.post("/replicate", body)[0] == 401
    assert ear.post("/replicate", body, signed(body, OTHER))[0] == 401
    assert ear.post("/replicate", body, signed(body, at=NOW - 400)) == (
        401, "the webhook was signed 6 min 40 s ago, by this computer's clock\n"
    )  # fmt: skip
    assert ear.post("/replicate", b"[" * 100_000, signed(b"[" * 100_000))[0] == 401
    assert ear.told() == []
    assert KEY not in caplog.text and signed(body)["webhook-signature"] not in caplog.text
    # A refused message spends no id: the true one still comes through.
    assert ear.post("/replicate", body, signed(body))[0] == 200


def test_a_key_that_was_changed_is_asked_for_again(listening: Callable[..., Ear]) -> None:
    body = b'{"id":"abc"}'
    ear = listening([KEY, OTHER])

    def signing_key(again: bool) -> str:
        return OTHER if again else KEY

    with Receiver((HOST, 0), ear.hints, path_secret=SECRET, signing_key=signing_key, clock=lambda: NOW) as receiver:
        other = Ear(receiver.port, ear.hints, [])
        assert other.post("/replicate", body, signed(body, OTHER))[0] == 200
    assert ear.told() == [Hint("replicate", "abc")]


def test_without_a_key_nothing_signed_is_believed(listening: Callable[..., Ear]) -> None:
    ear = listening([None])
    assert ear.post("/replicate", b"{}", signed(b"{}"))[0] == 401
    assert ear.told() == []


@pytest.mark.parametrize(
    ("body", "remote"),
    [
        (b'{"id":"job-1","status":"COMPLETED"}', "job-1"),
        (b"", ""),
        (b" \n", ""),
        (b"{}", ""),
        (b"[1]", ""),
        (b'{"id":7}', ""),
        (b'{"id":"a\\u0000b"}', ""),
        (b'{"id":"' + b"a" * 300 + b'"}', ""),
    ],
)
def test_runpod_s_body_is_a_hint_whatever_it_holds(ear: Ear, body: bytes, remote: str) -> None:
    assert ear.post(f"/runpod/{SECRET}", body) == (200, "")
    assert ear.told() == [Hint("runpod", remote)]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe{", b"[" * 200_000, b"id=7"])
def test_a_body_that_is_no_json_is_refused(ear: Ear, body: bytes) -> None:
    assert ear.post(f"/runpod/{SECRET}", body) == (400, "the webhook is no JSON\n")
    assert ear.told() == []


@pytest.mark.parametrize(
    "path",
    ["/", "/runpod", "/runpod/", f"/runpod/{SECRET}x", "/runpod/%73", "/replicate/", "/Replicate"],
)
def test_elsewhere_there_is_nothing(ear: Ear, path: str) -> None:
    assert ear.post(path, b"{}", signed(b"{}")) == (404, "")
    assert ear.told() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_only_post_is_taken(ear: Ear, method: str) -> None:
    assert ear.post("/replicate", method=method)[0] == 405


def test_a_message_nobody_looks_at_is_answered_all_the_same(listening: Callable[..., Ear]) -> None:
    ear = listening(most=1)
    assert [ear.post(f"/runpod/{SECRET}", b'{"id":"%d"}' % number)[0] for number in range(3)] == [200, 200, 200]
    assert ear.told() == [Hint("runpod", "0")]


# hostile and broken senders


def request(headers: str, body: bytes = b"") -> bytes:
    return f"POST /runpod/{SECRET} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("", 411),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 411),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: ²\r\n", 400),
        ("Content-Length: 2_0\r\n", 400),
        ("Content-Length: 2000001\r\n", 413),
        (f"Content-Length: {'9' * 5000}\r\n", 413),
        ("X: " + "a" * 70_000 + "\r\n", 431),
        ("".join(f"X-{number}: 1\r\n" for number in range(200)), 431),
    ],
)
def test_lengths_that_are_refused(ear: Ear, headers: str, expected: int) -> None:
    with socket.create_connection((HOST, ear.port), timeout=10) as connection:
        connection.sendall(request(headers, b"{}"))
        assert status(connection.recv(65536)) == expected
    assert ear.told() == []


def test_a_body_that_is_too_large_is_refused_before_it_has_come(ear: Ear) -> None:
    body = bytes(3_000_000)
    assert ear.post(f"/runpod/{SECRET}", body)[0] == 413
    assert ear.post(f"/runpod/{SECRET}", b'"%s"' % (b"a" * 1_999_998))[0] == 200
    assert ear.told() == [Hint("runpod", "")]


def test_garbage_disturbs_nobody(listening: Callable[..., Ear], capfd: pytest.CaptureFixture[str]) -> None:
    ear = listening(seconds=0.3)
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # a TLS greeting
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"\xff" * 1000,
        b"",
    ):
        ear.raw(data)
    with socket.create_connection((HOST, ear.port)) as connection:  # one that leaves with a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(request("Content-Length: 100\r\n", b"{"))
    assert ear.post(f"/runpod/{SECRET}", b"{}")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sent", [b"", b"POST /run", request("Content-Length: 100\r\n", b"{")], ids=range(3))
def test_a_slow_sender_is_left(listening: Callable[..., Ear], sent: bytes) -> None:
    ear = listening(seconds=0.3)
    with socket.create_connection((HOST, ear.port), timeout=10) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        answer = b"".join(iter(lambda: _received(connection), b""))
        assert time.monotonic() - began < 5
    assert answer == b"" or status(answer) == 408
    assert ear.told() == []


def test_a_sender_that_drips_is_left(listening: Callable[..., Ear]) -> None:
    ear = listening(seconds=0.3)
    with socket.create_connection((HOST, ear.port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nX: ")
        until = time.monotonic() + 5
        with pytest.raises(OSError):  # each byte comes in time, all of them do not
            while time.monotonic() < until:
                connection.sendall(b"a")
                time.sleep(0.01)


def test_a_body_that_ends_early_is_no_message(ear: Ear) -> None:
    with socket.create_connection((HOST, ear.port), timeout=10) as connection:
        connection.sendall(request("Content-Length: 100\r\n", b'{"id":"a"}'))
        connection.shutdown(socket.SHUT_WR)
        assert status(connection.recv(65536)) == 400
    assert ear.told() == []


def test_so_many_connections_at_once_and_no_more(listening: Callable[..., Ear]) -> None:
    ear = listening(connections=2, seconds=30)
    held = [socket.create_connection((HOST, ear.port), timeout=10) for _ in range(2)]
    try:
        third = b""
        with socket.create_connection((HOST, ear.port), timeout=10) as connection:
            third = connection.recv(1000)  # without a request, so that nothing unread resets the connection
        assert status(third) == 503
    finally:
        for connection in held:
            connection.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:  # the places become free again
        with contextlib.suppress(OSError):
            if ear.post(f"/runpod/{SECRET}", b"{}")[0] == 200:
                break
    assert ear.told() == [Hint("runpod", "")]


def test_many_senders_at_once(listening: Callable[..., Ear]) -> None:
    ear = listening(connections=64)
    statuses: list[int] = []
    body = b'{"id":"abc"}'

    def send() -> None:
        statuses.append(ear.post("/replicate", body, signed(body))[0])

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 20 and ear.told() == [Hint("replicate", "abc")]


# where it listens


def test_a_port_that_is_taken_and_addresses_that_are_none() -> None:
    def open_on(host: str, port: int) -> Receiver:
        return Receiver((host, port), queue.Queue(), path_secret=SECRET, signing_key=lambda again: KEY)

    with open_on(HOST, 0) as first, pytest.raises(DreamctlError) as raised:
        open_on(HOST, first.port).__enter__()
    assert raised.value.message == f"cannot listen on {HOST}, port {first.port}: address already in use"
    with open_on(HOST, first.port) as again:  # it is free at once
        assert again.port == first.port
    for host, port in (("no such host", 0), (HOST, 65536), (HOST, -1), ("a" * 100, 0)):
        with pytest.raises(InvalidInput, match="cannot listen on"):
            open_on(host, port).__enter__()
    with pytest.raises(DreamctlError, match=r"cannot listen on 192\.0\.2\.1"):
        open_on("192.0.2.1", 0).__enter__()


def test_it_closes_at_once_even_with_a_sender_at_the_line(listening: Callable[..., Ear]) -> None:
    hints = queue.Queue[Hint]()
    with Receiver((HOST, 0), hints, path_secret=SECRET, signing_key=lambda again: KEY) as receiver:
        slow = socket.create_connection((HOST, receiver.port))
        slow.sendall(b"POST / HTTP/1.1\r\n")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    slow.close()
    with pytest.raises(OSError):
        socket.create_connection((HOST, receiver.port), timeout=2)
