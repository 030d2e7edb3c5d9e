"""Fetching from a real server on loopback: hostile, slow, broken and good ones."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dreamctl.fetch import Fetched, Known, Patience, fetch
from dreamctl.wire import FetchFailed, Limits, Network
from tests.website import PUBLIC, Answer, Site, World, serving, write_certificate

BODY = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
HOST = "pictures.example"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def world(site: Site) -> World:
    return World(site, {HOST: [[PUBLIC]]})


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


def patient(tries: int = 1, pauses: list[float] | None = None, **limits: float) -> Patience:
    waits: list[float] = [] if pauses is None else pauses
    return Patience(Limits(**limits), tries, sleep=waits.append)  # type: ignore[arg-type]


def refused(
    url: str, part: Path, network: Network | None = None, patience: Patience | None = None, allow_private: bool = False
) -> FetchFailed:
    """Why a URL is not fetched; nothing of it is called whole."""
    with pytest.raises(FetchFailed) as raised:
        fetch(url, part, network=network, patience=patience or patient(), allow_private=allow_private)
    assert raised.value.hint
    return raised.value


# what comes


def test_the_bytes_come_with_their_digest_and_the_server_s_word_on_them(site: Site, world: World, part: Path) -> None:
    site.put("/a.png", Answer(BODY, headers={"ETag": '"7"', "Content-Disposition": 'inline; filename="b.png"'}))
    got = fetch(f"http://{HOST}/a.png?x=1#there", part, network=world.network())
    assert isinstance(got, Fetched) and part.read_bytes() == BODY
    assert (got.bytes, got.known.etag, got.disposition) == (len(BODY), '"7"', 'inline; filename="b.png"')
    assert world.dialled == [(PUBLIC, 80)]
    headers = site.seen[0][1]
    assert headers["host"] == HOST and headers["accept-encoding"] == "identity" and "dreamctl" in headers["user-agent"]
    assert "cookie" not in headers and "authorization" not in headers


def test_what_has_not_changed_is_not_sent_again(site: Site, world: World, part: Path) -> None:
    site.put(
        "/a",
        Answer(BODY, headers={"ETag": '"7"', "Last-Modified": "Fri, 01 Jan 2021 00:00:00 GMT"}),
        Answer(status=304),
    )
    first = fetch(f"http://{HOST}/a?signature=1", part, network=world.network())
    part.unlink()
    assert first and fetch(f"http://{HOST}/a?signature=2", part, network=world.network(), known=first.known) is None
    assert not part.exists()
    asked = site.seen[1][1]
    assert (asked["if-none-match"], asked["if-modified-since"]) == ('"7"', "Fri, 01 Jan 2021 00:00:00 GMT")


def test_another_server_is_not_asked_by_the_first_one_s_tag(site: Site, world: World, part: Path) -> None:
    site.put("/a", Answer(status=302, headers={"Location": "/b"}))
    site.put("/b", Answer(BODY, headers={"ETag": '"7"'}))
    got = fetch(f"http://{HOST}/a", part, network=world.network())
    assert got
    fetch(f"http://{HOST}/a", part, network=world.network(), known=got.known)
    assert ["if-none-match" in headers for _, headers in site.seen] == [False, False, False, True]
    fetch(f"http://{HOST}/b", part, network=world.network(), known=Known("elsewhere", '"7"'))
    assert "if-none-match" not in site.seen[-1][1]


def test_an_answer_that_ends_with_its_connection_is_fetched_again(site: Site, world: World, part: Path) -> None:
    def unframed(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "7"\r\n\r\n' + BODY)

    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "7"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n')

    site.put("/a", unframed)
    site.put("/b", chunked)
    tags = []
    for page in ("a", "b"):
        got = fetch(f"http://{HOST}/{page}", part, network=world.network())
        assert got
        tags.append(got.known.etag)
    assert tags == ["", '"7"']


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_an_unasked_for_encoding_is_unpacked(site: Site, world: World, part: Path, coding: str) -> None:
    packed = zlib.compress(BODY) if coding == "deflate" else gzip.compress(BODY)
    site.put("/a", Answer(packed, headers={"Content-Encoding": coding}))
    got = fetch(f"http://{HOST}/a", part, network=world.network())
    assert got and part.read_bytes() == BODY and got.bytes == len(BODY)


def test_the_server_s_words_may_be_utf_8(site: Site, world: World, part: Path) -> None:
    def raw(request: BaseHTTPRequestHandler) -> None:
        header = 'Content-Disposition: inline; filename="é.png"'.encode()
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + header + b"\r\nContent-Length: 1\r\n\r\na")

    site.put("/a", raw)
    got = fetch(f"http://{HOST}/a", part, network=world.network())
    assert got and got.disposition == 'inline; filename="é.png"'


def test_proxies_of_the_environment_are_not_used(
    site: Site, world: World, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.put("/a", Answer(BODY))
    assert fetch(f"http://{HOST}/a", part, network=world.network())
    world.table[HOST] = [[]]
    assert "no proxy" in str(refused(f"http://{HOST}/a", part, world.network()).hint)


# where it may go


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://pictures.example/a", "is not an http or https URL"),
        ("file:///etc/passwd", "is not an http or https URL"),
        ("http://me:secret@pictures.example/a", "holds a user name or a password"),
        ("http://me@pictures.example/a", "holds a user name or a password"),
        ("http://pictures.example:8080/a", "asks for port 8080"),
        ("http:///a", "names no host"),
        ("http://pictures.example:99999/a", "is not a URL"),
        ("http://[::1/a", "is not a URL"),
        ("http://pictures.example/a b", "holds characters"),
        ("http://pictures.example/\r\nX: y", "holds characters"),
    ],
)  # fmt: skip
def test_urls_that_are_not_fetched(world: World, part: Path, url: str, says: str) -> None:
    error = refused(url, part, world.network())
    assert error.message.startswith(says) and "secret" not in error.message + str(error.hint)
    assert world.asked == [] and world.dialled == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_computer_is_refused_however_it_is_spelt(part: Path, host: str) -> None:
    error = refused(f"http://{host}/a", part)
    assert "leads to this computer" in error.message and "--allow-private" in str(error.hint)


@pytest.mark.parametrize("address", ["169.254.169.254", "224.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1"])
def test_special_addresses_are_refused_even_where_private_ones_are_allowed(
    world: World, part: Path, address: str
) -> None:
    world.table[HOST] = [[address]]
    assert "leads to" in refused(f"http://{HOST}/a", part, world.network(), allow_private=True).message
    assert world.dialled == []


def test_only_the_checked_address_is_dialled(site: Site, world: World, part: Path) -> None:
    site.put("/a", Answer(BODY))
    world.table[HOST] = [[PUBLIC], ["127.0.0.1"]]  # a name that answers otherwise the second time
    assert fetch(f"http://{HOST}/a", part, network=world.network())
    assert (world.asked, world.dialled) == ([HOST], [(PUBLIC, 80)])
    world.table[HOST] = [["10.0.0.1", PUBLIC]]
    assert fetch(f"http://{HOST}/a", part, network=world.network())
    assert world.dialled[1:] == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://inner.example/", "leads to a private network (10.0.0.1)"),
        ("http://127.0.0.1/", "leads to this computer"),
        ("http://169.254.169.254/latest/meta-data/", "leads to a link-local address"),
        ("http://pictures.example:22/", "asks for port 22"),
        ("http://me:secret@pictures.example/", "holds a user name"),
        ("ftp://pictures.example/", "is not an http or https URL"),
        ("file:///etc/passwd", "is not an http or https URL"),
        ("//inner.example/x", "leads to a private network"),
    ],
)
def test_each_redirect_is_checked_anew(site: Site, world: World, part: Path, target: str, says: str) -> None:
    world.table |= {
        "inner.example": [["10.0.0.1"]], "127.0.0.1": [["127.0.0.1"]], "169.254.169.254": [["169.254.169.254"]]
    }  # fmt: skip
    site.put("/a", Answer(status=302, headers={"Location": target}))
    assert says in refused(f"http://{HOST}/a", part, world.network()).message
    assert world.dialled == [(PUBLIC, 80)]


def test_a_stranger_s_redirect_does_not_reach_what_the_user_allowed_by_name(
    site: Site, world: World, part: Path
) -> None:
    world.table |= {"inner.example": [["192.168.0.9"]]}
    site.put("/a", Answer(status=302, headers={"Location": "http://inner.example/b"}))
    site.put("/b", Answer(BODY))
    site.put("/c", Answer(status=302, headers={"Location": "/b"}))
    assert "leads to a private" in refused(f"http://{HOST}/a", part, world.network(), allow_private=True).message
    assert fetch("http://inner.example/c", part, network=world.network(), allow_private=True)


def test_redirects_are_followed_five_times(site: Site, world: World, part: Path) -> None:
    for number in range(6):
        site.put(f"/{number}", Answer(status=301 + number % 2, headers={"Location": f"/{number + 1}"}))
    site.put("/6", Answer(BODY))
    got = fetch(f"http://{HOST}/1", part, network=world.network())
    assert got and got.url == f"http://{HOST}/6"
    assert "more than 5 times" in refused(f"http://{HOST}/0", part, world.network()).message


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"), HOST)


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[World]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with serving(tls) as running:
        running.put("/a", Answer(BODY))
        yield World(running, {HOST: [[PUBLIC]], "other.example": [[PUBLIC]]})


def test_the_certificate_is_checked_for_the_name(secure: World, certificate: tuple[Path, Path], part: Path) -> None:
    network = secure.network(lambda: ssl.create_default_context(cafile=str(certificate[0])))
    assert fetch(f"https://{HOST}/a", part, network=network)
    assert part.read_bytes() == BODY and secure.dialled == [(PUBLIC, 443)]
    assert "no valid certificate" in refused("https://other.example/a", part, network).message
    assert "no valid certificate" in refused(f"https://{HOST}/a", part, secure.network()).message


def test_https_is_not_left(secure: World, certificate: tuple[Path, Path], part: Path) -> None:
    network = secure.network(lambda: ssl.create_default_context(cafile=str(certificate[0])))
    secure.site.put("/a", Answer(status=302, headers={"Location": f"http://{HOST}/b"}))
    assert refused(f"https://{HOST}/a", part, network).message == "redirects from https to http, which is not followed"


# limits


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(4096))


def dripping(request: BaseHTTPRequestHandler) -> None:
    """A header that never ends, a little at a time."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        request.wfile.write(b"a")
        time.sleep(0.02)


def silent(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    request.rfile.read(1)  # until the client leaves


def test_an_endless_body_is_cut_off(site: Site, world: World, part: Path) -> None:
    site.put("/a", endless)
    assert (
        refused(f"http://{HOST}/a", part, world.network(), patient(bytes=100_000)).message
        == "is larger than 100000 bytes"
    )
    assert part.stat().st_size <= 100_000


def test_a_body_that_says_it_is_too_large_is_not_begun(site: Site, world: World, part: Path) -> None:
    site.put("/a", Answer(BODY))
    assert "is larger" in refused(f"http://{HOST}/a", part, world.network(), patient(bytes=100)).message
    assert not part.exists()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_of_content_encoding_is_counted_as_it_unpacks(site: Site, world: World, part: Path, coding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000)) if coding == "gzip" else zlib.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    site.put("/a", Answer(bomb, headers={"Content-Encoding": coding}))
    assert refused(f"http://{HOST}/a", part, world.network(), patient(bytes=3_000_000)).message.startswith(
        "is larger than"
    )
    assert part.stat().st_size <= 3_000_000


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd", "nonsense"])
def test_other_encodings_are_refused(site: Site, world: World, part: Path, coding: str) -> None:
    site.put("/a", Answer(gzip.compress(gzip.compress(BODY)), headers={"Content-Encoding": coding}))
    assert "was not asked for" in refused(f"http://{HOST}/a", part, world.network()).message


def test_a_cut_or_broken_encoding_is_refused(site: Site, world: World, part: Path) -> None:
    site.put("/cut", Answer(gzip.compress(BODY)[:-9], headers={"Content-Encoding": "gzip"}))
    site.put("/bad", Answer(BODY, headers={"Content-Encoding": "gzip"}))
    assert refused(f"http://{HOST}/cut", part, world.network()).message == "is cut off"
    assert refused(f"http://{HOST}/bad", part, world.network()).message == "is packed wrongly"


def test_a_server_that_drips_runs_out_of_time(site: Site, world: World, part: Path) -> None:
    site.put("/a", dripping)
    assert (
        refused(f"http://{HOST}/a", part, world.network(), patient(total=0.4)).message == "took longer than 0.4 seconds"
    )


def test_a_server_that_falls_silent_runs_out_of_time(site: Site, world: World, part: Path) -> None:
    site.put("/a", silent)
    error = refused(f"http://{HOST}/a", part, world.network(), patient(silence=0.1))
    assert error.message == f"stopped: {HOST} said nothing for 0.1 seconds" and error.passing


def test_a_stop_ends_the_wait(site: Site, world: World, part: Path) -> None:
    site.put("/a", silent)
    stop = threading.Event()
    patience = Patience(tries=3, stop=stop)
    threading.Timer(0.1, stop.set).start()
    assert "stopped" in refused(f"http://{HOST}/a", part, world.network(), patience).message


# patience


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(site: Site, world: World, part: Path, status: int) -> None:
    site.put("/a", Answer(status=status), Answer(BODY))
    pauses: list[float] = []
    assert fetch(f"http://{HOST}/a", part, network=world.network(), patience=patient(3, pauses))
    assert len(pauses) == 1 and site.count("/a") == 2


def test_the_server_says_how_long_to_wait(site: Site, world: World, part: Path) -> None:
    pauses: list[float] = []
    site.put("/a", Answer(status=429, headers={"Retry-After": "7"}), Answer(BODY))
    assert fetch(f"http://{HOST}/a", part, network=world.network(), patience=patient(3, pauses))
    site.put("/b", Answer(status=429, headers={"Retry-After": "86400"}), Answer(BODY))
    assert fetch(f"http://{HOST}/b", part, network=world.network(), patience=patient(3, pauses))
    assert pauses == [7, 60]


@pytest.mark.parametrize(
    ("status", "says"), [(404, "is not there (404)"), (410, "is gone (410)"), (403, "is refused"), (418, "status 418")]
)
def test_what_will_not_pass_is_tried_once(site: Site, world: World, part: Path, status: int, says: str) -> None:
    site.put("/a", Answer(b"<html>", status))
    error = refused(f"http://{HOST}/a", part, world.network(), patient(3))
    assert says in error.message and not error.passing
    assert site.count("/a") == 1 and not part.exists()


def cut(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    request.wfile.write(BODY)
    request.wfile.flush()
    request.connection.shutdown(socket.SHUT_RDWR)


def test_a_cut_answer_is_tried_again_and_never_taken(site: Site, world: World, part: Path) -> None:
    site.put("/a", cut)
    error = refused(f"http://{HOST}/a", part, world.network(), patient(3))
    assert error.passing and site.count("/a") == 3
    site.put("/b", cut, Answer(BODY))
    assert fetch(f"http://{HOST}/b", part, network=world.network(), patience=patient(3))
    assert part.read_bytes() == BODY


def test_what_speaks_no_http_is_named_as_broken(site: Site, world: World, part: Path) -> None:
    def other(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    site.put("/a", other)
    assert "the answer is broken" in refused(f"http://{HOST}/a", part, world.network()).message


def test_nobody_there_and_no_such_host(part: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a?token=geheim99"
    error = refused(url, part, allow_private=True)
    assert "connection refused" in error.message and error.passing and "geheim99" not in error.message

    def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    error = refused("http://nowhere.example/a", part, Network(resolve=nothing))
    assert "no host nowhere.example is known" in error.message and error.passing


def test_a_full_disk_is_no_fault_of_the_server(site: Site, world: World) -> None:
    site.put("/a", Answer(BODY * 100))
    with pytest.raises(OSError, match="No space left"):
        fetch(f"http://{HOST}/a", Path("/dev/full"), network=world.network())
