"""The check of a dataset's URL, against a real server on loopback in a network in which it is public."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import io
import socket
import ssl
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dreamctl.dataurls import Fetchable, check_data_url
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.fetch import Patience
from dreamctl.http import redact
from dreamctl.peek import BEGINNING
from dreamctl.signedurls import expires_at
from dreamctl.wire import Limits, Network
from tests.website import PUBLIC, Answer, Site, World, serving, write_certificate

HOST = "data.example"
URL = f"http://{HOST}/data.zip"
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
TRUST = functools.cache(ssl.create_default_context)


def archive(size: int) -> bytes:
    """A zip archive that holds one file of `size` bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr("00.jpg", bytes(size))
    return made.getvalue()


SMALL, LARGE = archive(100), archive(3 * BEGINNING)


def ranged(data: bytes, **more: str) -> object:
    """A page that gives the part that is asked for, as object stores do."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        first, last = (int(end) for end in request.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        request.send_response(206 if part else 416)
        size = len(data)
        request.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{size}" if part else f"*/{size}")
        request.send_header("Content-Length", str(len(part)))
        for name, value in more.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(part)

    return answer


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def world(site: Site) -> World:
    site.put("/data.zip", ranged(LARGE))  # type: ignore[arg-type]
    return World(site, {HOST: [[PUBLIC]]})


def fetchable(
    world: World,
    url: str = URL,
    *,
    sha256: str = "",
    size: int = 0,
    needed: int = 0,
    allow_private: bool = False,
    network: Network | None = None,
    patience: Patience | None = None,
) -> int:
    patience = patience or Patience(Limits(total=20), 1)
    found = check_data_url(
        url, sha256=sha256, size=size, needed=needed, allow_private=allow_private,
        network=network or world.network(TRUST), patience=patience, now=NOW,
    )  # fmt: skip
    assert isinstance(found, Fetchable)
    return found.bytes


def refused(world: World, url: str = URL, kind: type[DreamctlError] = InvalidInput, **options: object) -> DreamctlError:
    """Why a URL does not do; no sentence holds what may be a secret."""
    with pytest.raises(kind) as raised:
        fetchable(world, url, **options)  # type: ignore[arg-type]
    error = raised.value
    assert type(error) is kind and error.field == "data_url" and error.hint
    assert error.message.startswith("the dataset's URL ")
    assert "geheim" not in error.message + error.hint
    assert raised.value.__context__ is None or "geheim" not in str(raised.value.__context__)
    return error


# what comes


def test_the_beginning_is_asked_for_once_and_anonymously(world: World) -> None:
    assert fetchable(world, size=len(LARGE)) == len(LARGE)
    [(path, headers)] = world.site.seen
    assert (path, headers["range"], headers["host"]) == ("/data.zip", f"bytes=0-{BEGINNING - 1}", HOST)
    assert "authorization" not in headers and "cookie" not in headers
    assert world.dialled == [(PUBLIC, 80)] and world.asked == [HOST]


def test_a_server_that_knows_no_ranges(world: World) -> None:
    world.site.put("/a", Answer(LARGE))
    assert fetchable(world, f"http://{HOST}/a", size=len(LARGE)) == len(LARGE)

    def unframed(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + LARGE)

    world.site.put("/b", unframed)
    assert fetchable(world, f"http://{HOST}/b", size=7) == 0  # nobody says how large it is
    world.site.put("/c", Answer(gzip.compress(LARGE), headers={"Content-Encoding": "gzip"}))
    assert fetchable(world, f"http://{HOST}/c", size=7) == 0


def test_a_large_file_is_not_fetched_as_a_whole(world: World) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" + SMALL)
        while True:
            request.wfile.write(bytes(65536))

    world.site.put("/data.zip", endless)
    assert fetchable(world) == 999_999_999_999


def test_another_archive_is_told_by_its_size_and_digest(world: World) -> None:
    assert f"of {len(LARGE)} bytes instead of 77" in refused(world, size=77).message
    digest = hashlib.sha256(SMALL).hexdigest()
    world.site.put("/small", ranged(SMALL))  # type: ignore[arg-type]
    small = f"http://{HOST}/small"
    assert fetchable(world, small, sha256=digest.upper(), size=len(SMALL)) == len(SMALL)
    assert f"{digest[:12]}… instead of abcabcabcabc…" in refused(world, small, sha256="abc" * 21 + "a").message
    for header in ("x_amz_meta_sha256", "x_goog_meta_sha256"):
        world.site.put("/data.zip", ranged(LARGE, **{header: "12" * 32}))  # type: ignore[arg-type]
        assert fetchable(world, sha256="12" * 32)
        assert "121212121212… instead of" in refused(world, sha256="ab" * 32).message


PAGE = b"\n <!DOCTYPE html><html>a page</html>"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (PAGE, "gives a web page instead of the archive"),
        (b"\xef\xbb\xbf<HTML>", "gives a web page"),
        (b"\xff\xd8\xff\xe0....", "gives a JPEG picture instead of a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "gives a PNG picture"),
        (b"RIFF....WEBPVP8 ", "gives a WebP picture"),
        (b"GIF89a", "gives a GIF picture"),
        (gzip.compress(b"x"), "gives a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c", "gives a 7z archive"),
        (b"Rar!\x1a\x07", "gives a RAR archive"),
        (bytes(257) + b"ustar\x0000", "gives a tar archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "gives a pointer of Git LFS"),
        (b"<?xml version='1.0'?><ListBucketResult>", "gives an XML document"),
        (b'{"error":"no"}', "gives a JSON document"),
        (archive(1)[-22:-12] + bytes(12), "gives an empty zip archive"),
        (b"PK\x07\x08", "gives a part of a split zip archive"),
        (b"geheim", "gives something else"),
        (SMALL[:-30], "gives a damaged zip archive"),
        (b"", "leads to an empty file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",  # archives hold the time
)
def test_what_is_no_zip_archive_is_told_for_what_it_is(world: World, body: bytes, says: str) -> None:
    for page in (Answer(body), ranged(body)):
        world.site.put("/data.zip", page)  # type: ignore[arg-type]
        assert says in refused(world).message


@pytest.mark.parametrize(
    ("host", "says", "advice"),
    [
        ("drive.google.com", "Google Drive's page", "dreamctl upload"),
        ("www.dropbox.com", "Dropbox's preview page", "dl=1"),
        ("huggingface.co", "the hub's page", "/resolve/"),
        ("notdropbox.com", "a web page", "dreamctl upload"),
    ],
)
def test_preview_pages_are_known_by_their_host(world: World, host: str, says: str, advice: str) -> None:
    world.table[host] = [[PUBLIC]]
    world.site.put("/s/geheim12/data.zip", Answer(b"<p>", headers={"Content-Type": "text/html; charset=utf-8"}))
    with pytest.raises(InvalidInput) as raised:
        fetchable(world, f"http://{host}/s/geheim12/data.zip?dl=0")
    assert f"gives {says} instead of the archive" in raised.value.message and advice in str(raised.value.hint)


# what the server says


@pytest.mark.parametrize(
    ("status", "body", "says", "kind"),
    [
        (401, b"", "is refused to strangers (401)", InvalidInput),
        (403, b"<Code>AccessDenied</Code>geheim", "is refused to strangers (403)", InvalidInput),
        (403, b"<Code>AccessDenied</Code><Message>Request has expired</Message>", "has run out", InvalidInput),
        (400, b"<Code>ExpiredToken</Code>", "has run out", InvalidInput),
        (403, b"Signature not valid in the specified time frame", "has run out", InvalidInput),
        (403, b"<Code>SignatureDoesNotMatch</Code>", "signature that does not fit", InvalidInput),
        (403, b"<Code>InvalidAccessKeyId</Code>", "keys that are not valid", InvalidInput),
        (404, b"", "leads to nothing (404)", NotFound),
        (410, b"", "leads to nothing any more (410)", NotFound),
        (204, b"", "was answered with status 204", ProviderError),
        (302, b"", "was answered with status 302", ProviderError),
        (418, b"", "was answered with status 418", ProviderError),
    ],
)
def test_refusals(world: World, status: int, body: bytes, says: str, kind: type[DreamctlError]) -> None:
    world.site.put("/data.zip", Answer(body, status))
    assert says in refused(world, f"{URL}?sig=geheim99", kind, patience=Patience(tries=3)).message
    assert world.site.count("/data.zip") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again(world: World, status: int) -> None:
    pauses: list[float] = []
    patience = Patience(tries=3, sleep=pauses.append)
    world.site.put("/data.zip", Answer(status=status, headers={"Retry-After": "3"}), Answer(SMALL))
    assert fetchable(world, patience=patience) == len(SMALL)
    assert pauses == [3]
    world.site.put("/data.zip", Answer(status=status, headers={"Retry-After": "²"}))
    assert f"status {status}" in refused(world, kind=ProviderError, patience=patience).message


def test_a_server_that_is_slow_or_silent(world: World) -> None:
    def dripping(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            request.wfile.write(b"a")
            time.sleep(0.02)

    def silent(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(1)  # until the client leaves

    world.site.put("/data.zip", dripping)
    error = refused(world, kind=ProviderError, patience=Patience(Limits(total=0.3), 3))
    assert "took longer than 0.3 seconds" in error.message and "provider" not in error.message
    assert world.site.count("/data.zip") == 1  # the time is for all tries together
    world.site.put("/silent", silent)
    patience = Patience(Limits(silence=0.1), 2, sleep=lambda seconds: None)
    assert (
        "said nothing for 0.1 seconds"
        in refused(world, f"http://{HOST}/silent", ProviderError, patience=patience).message
    )


def test_answers_that_are_none(world: World) -> None:
    def other(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + SMALL)
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)

    for page in (other, cut):
        world.site.put("/data.zip", page)
        assert "cannot be fetched" in refused(world, kind=ProviderError).message


def test_nobody_there_and_no_such_host(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a?token=geheim99"
    error = refused(world, url, ProviderError, allow_private=True, network=Network())
    assert "did not answer (connection refused)" in error.message

    def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    error = refused(world, "http://nowhere.example/a", ProviderError, network=Network(resolve=nothing))
    assert "no host nowhere.example is known" in error.message


# where it leads


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://bucket/data.zip", "is not an http or https URL"),
        ("file:///home/me/data.zip", "is not an http or https URL"),
        ("data.zip", "is not an http or https URL"),
        ("", "is not an http or https URL"),
        ("http://me:geheim99@data.example/data.zip", "holds a user name or a password"),
        ("http:///data.zip", "names no host"),
        ("http://data.example:99999/", "is not a URL"),
        ("http://[::1/a", "is not a URL"),
        ("http://data.example/a b", "holds characters"),
    ],
)  # fmt: skip
def test_urls_that_are_none(world: World, url: str, says: str) -> None:
    assert says in refused(world, url).message
    assert world.asked == []


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("10.0.0.7", "a private network (10.0.0.7)"),
        ("127.0.0.1", "this computer (127.0.0.1)"),
        ("::1", "this computer"),
        ("::ffff:192.168.1.1", "a private network (192.168.1.1)"),
        ("100.64.0.1", "a provider's inner network"),
        ("169.254.169.254", "a link-local address, such as a cloud's metadata service"),
    ],
)
def test_an_address_that_no_provider_reaches(world: World, address: str, what: str) -> None:
    world.table[HOST] = [[address]]
    message = refused(world).message
    assert f"leads to {what}" in message and "a provider's computer cannot reach" in message
    assert world.dialled == []
    if "metadata" in what:
        assert "cannot reach" in refused(world, allow_private=True).message
    else:
        assert fetchable(world, allow_private=True) == len(LARGE)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]"])
def test_this_computer_however_it_is_spelt(world: World, host: str) -> None:
    assert "leads to this computer" in refused(world, f"http://{host}:9000/a", network=Network()).message


def test_a_name_that_answers_otherwise_the_second_time_gains_nothing(world: World) -> None:
    world.table[HOST] = [[PUBLIC], ["127.0.0.1"]]
    assert fetchable(world) == len(LARGE)
    assert (world.asked, world.dialled) == ([HOST], [(PUBLIC, 80)])


def test_a_store_on_another_port_is_fine(world: World) -> None:
    assert fetchable(world, f"http://{HOST}:9000/data.zip") == len(LARGE)
    world.site.put("/moved", Answer(status=307, headers={"Location": "/data.zip"}))
    assert fetchable(world, f"http://{HOST}:9000/moved") == len(LARGE)
    assert world.dialled == [(PUBLIC, 9000)] * 3


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://inner.example/geheim", "leads to a private network (10.0.0.1)"),
        ("http://127.0.0.1/", "leads to this computer"),
        ("http://169.254.169.254/latest/meta-data/", "leads to a link-local address"),
        ("//inner.example/x", "leads to a private network"),
        ("http://other.example:22/", "asks for port 22"),
        ("http://me:geheim@data.example/", "holds a user name"),
        ("ftp://data.example/", "is not an http or https URL"),
        ("http://data.example:port/", "redirects to nowhere"),
    ],
)
def test_each_redirect_is_checked_anew(world: World, target: str, says: str) -> None:
    world.table |= {
        "inner.example": [["10.0.0.1"]], "other.example": [[PUBLIC]],
        "127.0.0.1": [["127.0.0.1"]], "169.254.169.254": [["169.254.169.254"]],
    }  # fmt: skip
    world.site.put("/data.zip", Answer(status=302, headers={"Location": target}))
    assert says in refused(world).message
    if "10.0.0.1" in says:  # nor does what the user allowed for their own server count for a stranger's
        assert says in refused(world, allow_private=True).message
    assert set(world.dialled) == {(PUBLIC, 80)}


def test_redirects_lead_to_the_archive_or_are_given_up(world: World) -> None:
    world.table["store.example"] = [[PUBLIC]]
    for number in range(6):
        place = f"http://store.example/{number + 1}" if number == 4 else f"/{number + 1}"
        world.site.put(f"/{number}", Answer(PAGE, 301 + number % 2, {"Location": place}))
    world.site.put("/6", Answer(SMALL))
    assert fetchable(world, f"http://{HOST}/1") == len(SMALL)
    assert "redirects more than 5 times" in refused(world, f"http://{HOST}/0").message


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"), HOST)


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[World]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with serving(tls) as running:
        running.put("/data.zip", Answer(SMALL))
        yield World(running, {HOST: [[PUBLIC]]})


def test_https_with_a_certificate_that_counts_and_never_back_to_http(
    secure: World, certificate: tuple[Path, Path]
) -> None:
    network = secure.network(lambda: ssl.create_default_context(cafile=str(certificate[0])))
    url = f"https://{HOST}/data.zip"
    assert fetchable(secure, url, network=network) == len(SMALL)
    assert secure.dialled == [(PUBLIC, 443)]
    assert "no valid certificate" in refused(secure, url, ProviderError).message
    secure.site.put("/data.zip", Answer(status=302, headers={"Location": URL}))
    assert "redirects from https to http" in refused(secure, url, network=network).message


# the user's own proxy


def test_behind_a_proxy_the_proxy_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:pa%3Ass@proxy.example:3128")
    world.table |= {"proxy.example": [["10.0.0.9"]], HOST: [[]]}  # names of the outside are unknown here
    world.site.put(URL.partition("?")[0], Answer(SMALL))  # a proxy is asked for the whole URL
    assert fetchable(world) == len(SMALL)
    assert world.dialled == [("10.0.0.9", 3128)]
    assert world.site.seen[0][1]["proxy-authorization"] == f"Basic {base64.b64encode(b'me:pa:ss').decode()}"
    world.table[HOST] = [["10.0.0.1"]]
    assert "leads to a private network" in refused(world).message
    assert fetchable(world, allow_private=True) == len(LARGE)  # what is near is not asked for through it
    assert world.dialled[1:] == [("10.0.0.1", 80)]


def test_hosts_that_need_no_proxy_and_proxies_that_are_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", ".example")
    assert fetchable(world) == len(LARGE)
    monkeypatch.delenv("no_proxy")
    for proxy in ("http://proxy.example:x", "socks5://proxy.example:1080"):
        monkeypatch.setenv("all_proxy", proxy)
        assert fetchable(world) == len(LARGE)
    assert world.dialled == [(PUBLIC, 80)] * 3


# signatures


def queries(ends: datetime) -> dict[str, str]:
    """One query of each kind of signature that counts until `ends`."""
    epoch, begins = int(ends.timestamp()), f"{ends - 2 * HOUR:%Y%m%dT%H%M%SZ}"
    azure = f"{ends:%Y-%m-%dT%H:%M:%SZ}".replace(":", "%3A")
    return {
        "S3": f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={begins}&X-Amz-Expires=7200&X-Amz-Signature=geheim99",
        "S3 of old": f"AWSAccessKeyId=geheim&Signature=geheim%3D&Expires={epoch}",
        "CloudFront": f"Expires={epoch}&Signature=geheim&Key-Pair-Id=K1",
        "Google": f"X-Goog-Date={begins}&X-Goog-Expires=7200&X-Goog-Signature=geheim99",
        "Google of old": f"GoogleAccessId=a%40b.example&Expires={epoch}&Signature=geheim",
        "Azure": f"sv=2022-11-02&st=2020-01-01&se={azure}&sr=b&sig=geheim%3D",
    }


@pytest.mark.parametrize("kind", list(queries(NOW)))
def test_a_signature_that_has_run_out_or_soon_will(world: World, kind: str) -> None:
    error = refused(world, f"{URL}?{queries(NOW - HOUR)[kind]}")
    assert "ran out at 2026-11-20 11:00:00 UTC, 1 h ago" in error.message and "--expires 3d" in str(error.hint)
    error = refused(world, f"{URL}?{queries(NOW + HOUR)[kind]}", needed=5400)
    assert "runs out at 2026-11-20 13:00:00 UTC, in 1 h" in error.message and "1 h 30 min from now" in error.message
    assert world.asked == []
    assert fetchable(world, f"{URL}?{queries(NOW + HOUR)[kind]}", needed=3600) == len(LARGE)


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("", None),
        ("Expires=0", None),  # some other meaning: nothing is signed
        ("se=2020-01-01", None),
        ("X-Amz-Expires=60", None),
        ("X-Amz-Date=20261120T120000Z&X-Amz-Expires=soon", None),
        ("X-Amz-Date=yesterday&X-Amz-Expires=60", None),
        ("X-Amz-Date=20261120T120000Z&X-Amz-Expires=" + "9" * 30, None),
        ("Expires=" + "9" * 30 + "&Signature=x", None),
        ("Expires=" + "9" * 5000 + "&Signature=x", None),
        ("Expires=-" + "9" * 18 + "&Signature=x", None),
        ("se=whenever&sig=x", None),
        ("&".join(["a=1"] * 500), None),
        ("x-amz-date=20261120T120000Z&x-amz-expires=60", NOW + timedelta(seconds=60)),
        ("se=2026-11-20&sig=x", NOW - timedelta(hours=12)),
        ("se=2026-11-20T12%3A00Z&sig=x", NOW),
        ("se=2026-11-20T13%3A00%3A00.0000000%2B01%3A00&sig=x", NOW),
    ],
)
def test_when_signatures_run_out(query: str, ends: datetime | None) -> None:
    assert expires_at(f"{URL}?{query}") == ends
    assert expires_at("http://[") is None


def test_the_query_is_a_secret_from_now_on(world: World) -> None:
    fetchable(world, f"{URL}?strange=Zq81geheimmm")
    assert "Zq81" not in redact("a library says: GET /data.zip?strange=Zq81geheimmm HTTP/1.1")
