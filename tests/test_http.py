"""Talking to providers, against a real server on loopback; and what never shows in a sentence or a log."""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dreamctl import http
from dreamctl.errors import CredentialsError, InvalidInput, NotFound, ProviderError

TOKEN = "r8_abcdefgh12345678"


@dataclass
class Server:
    """A provider that answers as told: for each request the next of `answers`, the last again and again."""

    answers: list[tuple[int, dict[str, str], str]]
    seen: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, dict[str, str], str]) -> Server:
        server = Server(list(answers) or [(200, {}, "{}")])

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
                server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, headers, text = server.answers[min(len(server.seen), len(server.answers)) - 1]
                if status == 0:  # drop the connection without a word
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value.replace("{self}", server.url))
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.port = listener.server_address[1]
        running.append(listener)
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for listener in running:
        listener.shutdown()
        listener.server_close()


OK = (200, {"Content-Type": "application/json"}, '{"name": "me"}')


def test_the_token_goes_along_and_the_answer_comes_back(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    answer = http.request("POST", server.url + "/v1/jobs", token=TOKEN, json={"input": 1})
    assert answer.json() == {"name": "me"}
    method, path, headers, body = server.seen[0]
    assert (method, path, headers["authorization"], json.loads(body)) == (
        "POST",
        "/v1/jobs",
        f"Bearer {TOKEN}",
        {"input": 1},
    )


# patience


@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(serve: Callable[..., Server], status: int) -> None:
    server, pauses = serve((status, {}, ""), (status, {}, ""), OK), list[float]()
    assert http.request("GET", server.url, sleep=pauses.append).json() == {"name": "me"}
    assert len(server.seen) == 3
    assert 0 < pauses[0] < pauses[1], "pauses grow"


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_write_that_is_no_put_is_never_sent_twice(serve: Callable[..., Server], status: int) -> None:
    server, pauses = serve((status, {}, ""), OK), list[float]()
    with pytest.raises(ProviderError):
        http.request("POST", server.url, json={}, sleep=pauses.append)
    assert (len(server.seen), pauses) == (1, [])


@pytest.mark.parametrize("status", [400, 409, 422])
def test_what_will_not_pass_is_not_tried_again(serve: Callable[..., Server], status: int) -> None:
    server = serve((status, {}, '{"detail": "the version is gone"}'))
    with pytest.raises(ProviderError, match=rf"127\.0\.0\.1 answered {status} .*: the version is gone"):
        http.request("GET", server.url, sleep=lambda seconds: None)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "waited"),
    [("7", (7, 7)), ("0", (0, 0)), ("86400", (60, 60)), ("in 20 s", (18, 20)), ("soon", (0.3, 0.7))],
)
def test_the_server_says_how_long_to_wait_within_reason(
    serve: Callable[..., Server], said: str, waited: tuple[float, float]
) -> None:
    text = email.utils.formatdate(time.time() + 20, usegmt=True) if said == "in 20 s" else said
    server, pauses = serve((429, {"Retry-After": text}, ""), OK), list[float]()
    http.request("GET", server.url, sleep=pauses.append)
    assert waited[0] <= pauses[0] <= waited[1]


def test_patience_ends(serve: Callable[..., Server]) -> None:
    server = serve((503, {}, "<html>a long page</html>"))
    with pytest.raises(ProviderError, match=r"answered 503 Service Unavailable$") as raised:
        http.request("GET", server.url, retries=2, sleep=lambda seconds: None)
    assert len(server.seen) == 3
    assert raised.value.hint == "try again later"


def test_nobody_there_is_a_provider_error_that_names_the_host() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/path?token=geheim99"
    pauses: list[float] = []
    with pytest.raises(ProviderError, match=r"cannot reach 127\.0\.0\.1: .*refused") as raised:
        http.request("GET", url, retries=1, sleep=pauses.append)
    assert len(pauses) == 1
    assert "geheim99" not in raised.value.message


def test_a_server_that_says_nothing_runs_out_of_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ProviderError, match="did not answer in time"):
            http.request("GET", f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1, retries=0)


# what must not run twice


@pytest.mark.parametrize("status", [0, 408, 500, 502, 503, 504, 599])
def test_what_may_have_run_is_lost_and_not_sent_again(serve: Callable[..., Server], status: int) -> None:
    server = serve((status, {"Retry-After": "1"}, ""), OK)
    with pytest.raises(http.AnswerLost, match="whether the request arrived is not known"):
        http.request("POST", server.url, json={}, once=True)
    assert len(server.seen) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3"}])
def test_a_server_that_is_busy_has_not_run_it(serve: Callable[..., Server], headers: dict[str, str]) -> None:
    server, pauses = serve((429, headers, ""), OK), list[float]()
    assert http.request("POST", server.url, json={}, once=True, sleep=pauses.append).json() == {"name": "me"}
    assert len(server.seen) == 2 and (not headers or pauses == [3.0])


def test_what_never_got_a_connection_is_tried_again_and_not_lost() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    pauses: list[float] = []
    with pytest.raises(ProviderError, match=r"cannot reach 127\.0\.0\.1") as raised:
        http.request("POST", url, json={}, once=True, retries=2, sleep=pauses.append)
    assert not isinstance(raised.value, http.AnswerLost)
    assert len(pauses) == 2


def test_a_refusal_is_no_lost_answer(serve: Callable[..., Server]) -> None:
    with pytest.raises(ProviderError, match="400") as raised:
        http.request("POST", serve((400, {}, "")).url, json={}, once=True)
    assert not isinstance(raised.value, http.AnswerLost)


@pytest.mark.parametrize(("asked", "says"), [("7", "try again in 7 s"), ("600", "try again in 60 s or later")])
def test_a_pause_that_ends_too_late_is_not_begun(serve: Callable[..., Server], asked: str, says: str) -> None:
    server, pauses = serve((429, {"Retry-After": asked}, ""), OK), list[float]()
    with pytest.raises(ProviderError, match="429") as raised:
        http.request("POST", server.url, json={}, once=True, within=5, sleep=pauses.append)
    assert not isinstance(raised.value, http.AnswerLost), "it surely did not run"
    assert (raised.value.hint, len(server.seen), pauses) == (says, 1, [])


@pytest.mark.parametrize("server_does", ["answers for ever", "takes slowly", "nothing"])
def test_a_request_ends_in_time_whatever_the_server_does(server_does: str) -> None:
    over = threading.Event()

    def converse(listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line:
            line.settimeout(0.01)
            if server_does == "answers for ever":
                line.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.01):
                with contextlib.suppress(OSError):
                    if server_does == "answers for ever":
                        line.sendall(b"X-More: 1\r\n")
                    if server_does != "nothing":
                        line.recv(100_000)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=converse, args=(listener,), daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(http.AnswerLost, match="did not answer in time"):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            data = "x" * (50_000_000 if server_does == "takes slowly" else 10)
            http.request("POST", url, json={"data": data}, once=True, within=0.5)
        assert time.monotonic() - began < 3
        over.set()
        thread.join(5)


def test_ctrl_c_in_the_middle_of_a_request_stays_what_it_is() -> None:
    main = threading.get_ident()

    def converse(listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line:
            line.recv(65536)
            signal.pthread_kill(main, signal.SIGINT)
            line.recv(65536)  # until it is closed

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            threading.Thread(target=converse, args=(listener,), daemon=True).start()
            with pytest.raises(KeyboardInterrupt):
                http.request(
                    "POST", f"http://127.0.0.1:{listener.getsockname()[1]}/", json={}, once=True, within=9, timeout=9
                )
    finally:
        signal.signal(signal.SIGINT, before)


# translation


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_a_credentials_error_without_the_token(serve: Callable[..., Server], status: int) -> None:
    server = serve((status, {}, json.dumps({"error": f"token {TOKEN} is not valid"})))
    with pytest.raises(CredentialsError, match=rf"refused the token \({status}\)") as raised:
        http.request("GET", server.url, token=TOKEN)
    assert TOKEN not in raised.value.message
    assert "auth login" in (raised.value.hint or "")


def test_without_a_token_a_closed_door_is_said_to_want_one(serve: Callable[..., Server]) -> None:
    with pytest.raises(CredentialsError, match="wants a token"):
        http.request("GET", serve((401, {}, "")).url)


def test_what_is_not_there_is_not_found(serve: Callable[..., Server]) -> None:
    with pytest.raises(NotFound, match=r"/v2/gone is not there \(404\): no such endpoint"):
        http.request("GET", serve((404, {}, '{"error": {"message": "no such endpoint"}}')).url + "/v2/gone")


def test_foreign_text_cannot_write_on_the_terminal(serve: Callable[..., Server]) -> None:
    server = serve((400, {}, json.dumps({"detail": "bad\x1b[2J\r\nERROR all is lost\x07"})))
    with pytest.raises(ProviderError, match=r"bad \[2J ERROR all is lost$"):
        http.request("GET", server.url)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "ftp://host/x", "nonsense"])
def test_what_is_no_url_is_one_clear_error(url: str) -> None:
    with pytest.raises((InvalidInput, ProviderError)):
        http.request("GET", url, retries=0)


# where the token may go


def test_a_redirect_within_the_host_keeps_the_token(serve: Callable[..., Server]) -> None:
    server = serve((307, {"Location": "/elsewhere"}, ""), OK)
    http.request("GET", server.url, token=TOKEN)
    assert [(seen[1], seen[2].get("authorization")) for seen in server.seen] == [
        ("/", f"Bearer {TOKEN}"),
        ("/elsewhere", f"Bearer {TOKEN}"),
    ]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_origin_loses_the_token(serve: Callable[..., Server], name: str) -> None:
    other = serve(OK)
    first = serve((302, {"Location": f"http://{name}:{other.port}/files"}, ""))
    assert http.request("GET", first.url, token=TOKEN).json() == {"name": "me"}
    assert "authorization" not in other.seen[0][2]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_write_is_not_carried_to_another_origin(serve: Callable[..., Server], status: int) -> None:
    other = serve(OK)
    first = serve((status, {"Location": other.url + "/"}, ""))
    with pytest.raises(ProviderError, match=r"answered POST with a redirect to 127\.0\.0\.1, which is not followed"):
        http.request("POST", first.url, token=TOKEN, json={"secret": "geheim"})
    assert other.seen == []


def test_a_circle_of_redirects_ends(serve: Callable[..., Server]) -> None:
    server = serve((302, {"Location": "/again"}, ""))
    with pytest.raises(ProviderError, match="redirects in a circle"):
        http.request("GET", server.url, retries=0)
    assert len(server.seen) < 10


@pytest.mark.parametrize("url", ["http://api.example/v1", "http://192.168.0.9/v1", "ftp://127.0.0.1/"])
def test_a_token_is_never_sent_in_the_clear(url: str) -> None:
    with pytest.raises(InvalidInput, match="a token is sent over https only"):
        http.request("GET", url, token=TOKEN)


# redaction

SECRETS = (
    "Authorization: Bearer abcdefGEHEIM",
    "authorization=GEHEIM12",
    "{'Authorization': 'Basic Z2VoGEHEIM'}",
    '{"authorization": "Token GEHEIMGEHEIM"}',
    "curl -H 'Authorization: bearer GEHEIM-GEHEIM'",
    "sent bearer GEHEIMGEHEIM to it",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKGEHEIM%2F1&X-Amz-Signature=abGEHEIM&X-Amz-Expires=60",
    "https://b/k?a=1&X-Amz-Security-Token=GEHEIM/x+y==",
    "https://storage.googleapis.com/b/k?X-Goog-Signature=GEHEIM&X-Goog-Algorithm=GOOG4",
    "https://b/k?AWSAccessKeyId=GEHEIM&Signature=GEHEIM%3D&Expires=1",
    "https://user:GEHEIM@host.example/path",
    "s3://GEHEIM@bucket",
    "postgres+ssl://u:GE:HEIM:GEHEIM@host/db",
    "token hf_GEHEIM1234567890abcd is bad",
    "hf_abcdefghijklmnopGEHEIMqrstuvwx",
    "r8_GEHEIM1234",
    "key=rpa_GEHEIM12345",
    "whsec_GEHEIM+abc/def=",
    '{"hf_token": "GEHEIM", "x": 1}',
    "{'api_key': 'GEHEIM'}",
    "https://h/x?access_token=GEHEIM#f",
    "https://storage.googleapis.com/upload/b/o?uploadType=resumable&upload_id=GEHEIM_x-y",
    "u=https%3A%2F%2Fb%2Fk%3FX-Amz-Signature%3DGEHEIM%26x",
    "AWS4-HMAC-SHA256 Credential=GEHEIM/20261120/us-east-1/s3/aws4_request, SignedHeaders=host",
    "AWS_SECRET_ACCESS_KEY=GEHEIM/x",
    "aws_session_token = 'GEHEIM'",
    '{"private_key": "-----BEGIN GEHEIM"}',
)


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    shown = http.redact(text)
    assert "GEHEIM" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "the token is missing: set HF_TOKEN or run `dreamctl auth login huggingface`",
        "hub_endpoint = 'https://mirror.example/path?q=1': must be an https:// URL",
        "identifier sks (person) is at /home/me/runs/20261120-101502-k3f9",
        "hf_endpoint and hf_hub and r8_x are names",
        "see https://host.example/a@b and mail me@host.example",
        "signature of train(step, key) changed",
        "authorization is needed",
    ],
)
def test_ordinary_sentences_stay_as_they_are(text: str) -> None:
    assert http.redact(text) == text


def test_a_known_secret_is_hidden_whatever_it_looks_like() -> None:
    http.remember_secret("plain-old-words")
    assert http.redact("it was plain-old-words, was it?") == "it was ***, was it?"
    assert http.redact(http.redact("plain-old-words")) == "***"


def test_a_log_line_and_its_traceback_hold_no_secret() -> None:
    formatter = http.RedactingFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("Authorization: Bearer GEHEIMGEHEIM")
    except ValueError as error:
        information = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "got %s", ("hf_GEHEIM123456",), information)
    line = formatter.format(record)
    assert "Traceback" in line and "ERROR got" in line
    assert "GEHEIM" not in line
