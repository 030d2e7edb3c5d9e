"""What lies at a provider's URL comes whole or not at all, whatever its server says of it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dreamctl.errors import DreamctlError, ProviderError
from dreamctl.storage.base import StoredObject
from dreamctl.storage.web import LinkDead, bring
from tests.website import Answer, Handle, Site, serving

DATA = bytes(range(256)) * 800  # several pieces
SIZE = len(DATA)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "arriving" / "result"


def fetched(site: Site, target: Path, *answers: Answer | Handle, sha256: str = "") -> StoredObject:
    return bring(site.put("/result", *answers), target, sha256=sha256, allow_private=True)


def part(begin: int, data: bytes, whole: int | str, **headers: str) -> Answer:
    told = f"bytes {begin}-{begin + len(data) - 1}/{whole}"
    return Answer(data, 206, {"Content-Range": told, **headers})


def ranged(data: bytes, cut: int = 0) -> Handle:
    """A server that knows ranges; where `cut`, the line breaks after so many bytes, each time."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        begin, end = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["Range"]).groups()  # type: ignore[union-attr]
        piece = data[int(begin) : int(end) + 1 if end else None]
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(piece) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(piece)))
        request.end_headers()
        request.wfile.write(piece[: cut or None])

    return handle


@pytest.mark.parametrize("answer", [Answer(DATA), ranged(DATA)], ids=["whole", "in ranges"])
def test_what_is_there_comes_with_its_digest(site: Site, target: Path, answer: Answer | Handle) -> None:
    stored = fetched(site, target, answer)
    assert target.read_bytes() == DATA
    assert (stored.bytes, stored.sha256) == (SIZE, hashlib.sha256(DATA).hexdigest())
    assert [path.name for path in target.parent.iterdir()] == ["result"]


def test_a_line_that_breaks_again_and_again_is_gone_on_with(site: Site, target: Path) -> None:
    fetched(site, target, ranged(DATA, cut=SIZE // 2 + 1))
    assert target.read_bytes() == DATA
    assert site.count("/result") == 3


def test_a_server_that_knows_no_ranges_is_gone_on_with_too(site: Site, target: Path) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(SIZE))
        request.end_headers()
        request.wfile.write(DATA[:70_000])

    fetched(site, target, Answer(DATA), cut, Answer(DATA))
    assert target.read_bytes() == DATA


# what a server says and does not keep


def unending(request: BaseHTTPRequestHandler) -> None:
    """Says how large it is, and sends on: by chunks, which no length ends."""
    begin = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
    request.send_response(206)
    request.send_header("Content-Range", f"bytes {begin}-{SIZE - 1}/{SIZE}")
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for piece in (DATA[begin:], b"and more"):
        request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")


ABSURD = "9" * 5000


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (part(0, b"x", ABSURD), "does not say how large"),
        (part(0, b"x", "9" * 15), "does not say how large"),
        (part(0, b"x", "*"), "does not say how large"),
        (part(0, b"x", "-1"), "does not say how large"),
        (Answer(b"x", 206), "does not say how large"),
        (Answer(b"x", 206, {"Content-Range": "bytes ²-0/1"}), "does not say how large"),
        (part(5, b"x", 9), "another part"),
        (Answer(b"x", 206, {"Content-Range": f"bytes {ABSURD}-0/1"}), "does not say how large"),
    ],
    ids=range(8),
)
def test_sizes_and_parts_that_cannot_be_are_one_sentence(
    site: Site, target: Path, answer: Answer, message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        fetched(site, target, answer)
    assert not target.exists()


def test_a_part_that_begins_elsewhere_than_asked_is_not_put_there(site: Site, target: Path) -> None:
    whole = ranged(DATA, cut=70_000)
    with pytest.raises(ProviderError, match="another part"):
        fetched(site, target, whole, whole, part(0, DATA, SIZE))
    assert not target.exists()
    fetched(site, target, ranged(DATA))
    assert target.read_bytes() == DATA


def test_more_than_was_said_is_noticed_every_time(site: Site, target: Path) -> None:
    for _ in range(2):
        with pytest.raises(ProviderError, match="more than it said"):
            fetched(site, target, unending)
    assert not target.exists()


def test_a_digest_that_is_another_is_noticed(site: Site, target: Path) -> None:
    with pytest.raises(ProviderError, match="SHA-256"):
        fetched(site, target, Answer(DATA), sha256="0" * 64)
    assert not target.exists()


@pytest.mark.parametrize(
    "place", ["//a:99999999/", "http://a:b/", "http://[::1", "ftp://x/", "\\\\", "http://\xff\xfe\x1b/"]
)
def test_a_redirect_to_nowhere_is_one_sentence(site: Site, target: Path, place: str) -> None:
    with pytest.raises(ProviderError):
        fetched(site, target, Answer(status=302, headers={"Location": place}))


def test_a_circle_of_redirects_ends(site: Site, target: Path) -> None:
    with pytest.raises(ProviderError, match="in a circle"):
        fetched(site, target, Answer(status=302, headers={"Location": "{self}/result"}))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_that_is_dead_is_called_so(site: Site, target: Path, status: int) -> None:
    with pytest.raises(LinkDead):
        fetched(site, target, Answer(b"gone", status))


NOISE = [b"", b"\x00" * 99, b"HTTP/1.1 999999 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"]


@pytest.mark.parametrize("noise", NOISE, ids=["nothing", "zeros", "an odd status", "a length below zero"])
def test_noise_is_no_traceback(site: Site, target: Path, noise: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamctl.storage.web._TRIES", 1)

    def handle(request: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            request.wfile.write(noise)

    with pytest.raises(DreamctlError):
        fetched(site, target, handle)
