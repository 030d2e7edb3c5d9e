"""Downloads are kept, asked about and not fetched again; whatever kills one leaves nothing half-true."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dreamctl.downloads import AT_ONCE, KEPT_DAYS, Download, disposition_name, download, file_name
from dreamctl.errors import DreamctlError
from dreamctl.fetch import Patience
from dreamctl.urls import Wanted
from tests.pictures import packed, quarters
from tests.website import Answer, Site, serving

PICTURE = packed(quarters(), "PNG")
PAGE = Answer(b"\n<!DOCTYPE html><title>Please log in</title>", headers={"Content-Type": "image/png"})


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., list[Download]]:
    def run(*urls: str | Wanted) -> list[Download]:
        wanted = [Wanted(item) if isinstance(item, str) else item for item in urls]
        return download(wanted, tmp_path / "cache", allow_private=True, patience=Patience(tries=1))

    return run


Bring = Callable[..., list[Download]]


def test_a_download_is_kept_under_a_good_name(site: Site, bring: Bring) -> None:
    url = site.put("/photos/me%20and%20you.jpeg", Answer(PICTURE))
    item = bring(url)[0]
    assert item.path and item.path.name == "me and you.png", "the suffix is that of the bytes"
    assert item.path.read_bytes() == PICTURE
    assert {path.name for path in item.path.parent.iterdir()} - {"lock"} == {"about.json", item.path.name}


def test_nothing_on_disk_holds_the_url(site: Site, bring: Bring, tmp_path: Path) -> None:
    bring(site.put("/a.png", Answer(PICTURE, headers={"ETag": '"7"'})) + "?X-Amz-Signature=GEHEIM&id=abc")
    texts = [path.read_bytes() + str(path).encode() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert texts and not any(b"GEHEIM" in text or b"id=abc" in text for text in texts)


def test_what_did_not_change_is_not_fetched_again(site: Site, bring: Bring) -> None:
    changed = Answer(packed(quarters(50, 50), "PNG"), headers={"ETag": '"8"'})
    url = site.put("/a.png", Answer(PICTURE, headers={"ETag": '"7"'}), Answer(status=304), changed)
    first, second = bring(url)[0], bring(url)[0]
    assert first.path == second.path and second.path and second.path.read_bytes() == PICTURE
    assert site.seen[1][1]["if-none-match"] == '"7"'
    third = bring(url)[0]
    assert third.path and third.path.read_bytes() == changed.body


def test_a_damaged_copy_is_fetched_again_whole(site: Site, bring: Bring) -> None:
    url = site.put("/a.png", Answer(PICTURE, headers={"ETag": '"7"'}))
    path = bring(url)[0].path
    assert path
    path.write_bytes(PICTURE[:-1])
    assert bring(url)[0].path == path and path.read_bytes() == PICTURE
    (path.parent / "about.json").write_text('{"schema": 1, "file": "../../a"}')
    assert bring(url)[0].path == path
    assert all("if-none-match" not in headers for _, headers in site.seen)


def test_offline_the_copy_is_used_and_said_to_be_one(site: Site, bring: Bring) -> None:
    url = site.put("/a.png", Answer(PICTURE), Answer(status=503), Answer(status=404))
    bring(url)
    offline = bring(url)[0]
    assert offline.path and offline.path.read_bytes() == PICTURE
    assert offline.note.startswith("was answered with status 503: the copy of 20") and offline.note.endswith("was used")
    gone = bring(url)[0]
    assert (gone.path, gone.reason) == (None, "is not there (404)"), "what is gone is gone"


def test_copies_that_nobody_asked_for_in_a_season_are_let_go(site: Site, bring: Bring) -> None:
    old, used, new = (site.put(f"/{name}.png", Answer(PICTURE)) for name in ("old", "used", "new"))
    kept = {url: item.path for url, item in zip((old, used), bring(old, used), strict=True) if item.path}
    long_ago = time.time() - (KEPT_DAYS + 1) * 24 * 3600
    for path in kept.values():
        os.utime(path.parent, (long_ago, long_ago))
    bring(used, new)
    assert not kept[old].parent.exists() and kept[used].is_file()


def test_a_web_page_is_named_as_one_and_not_kept(site: Site, bring: Bring, tmp_path: Path) -> None:
    item = bring(site.put("/a.png", PAGE))[0]
    assert (item.path, item.reason) == (None, "is a web page, not a picture") and item.advice
    assert {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()} <= {"lock"}


def test_a_page_in_place_of_a_picture_does_not_cost_the_picture(site: Site, bring: Bring) -> None:
    url = site.put("/a.png", Answer(PICTURE, headers={"ETag": '"7"'}), PAGE, Answer(status=304))
    bring(url)
    assert "web page" in bring(url)[0].reason
    assert bring(url)[0].path


def test_a_wrong_content_type_does_not_matter_where_the_bytes_are_a_picture(site: Site, bring: Bring) -> None:
    assert bring(site.put("/a", Answer(PICTURE, headers={"Content-Type": "text/html"})))[0].path


def test_each_url_is_fetched_once_and_failures_stop_nobody(site: Site, bring: Bring) -> None:
    good = [site.put(f"/{number}.png", Answer(PICTURE)) for number in range(6)]
    came = bring(*good, site.url + "/gone.png", "http://me:GEHEIM@h/", *good)
    assert [item.wanted.url for item in came[:6]] == good
    assert [bool(item.path) for item in came] == [True] * 6 + [False] * 2
    assert [site.count(f"/{number}.png") for number in range(6)] == [1] * 6
    assert "GEHEIM" not in "".join(item.reason + item.advice for item in came)


def test_only_a_few_are_under_way_at_once(site: Site, bring: Bring) -> None:
    lock, most, now = threading.Lock(), 0, 0
    full = threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            if now == AT_ONCE:
                full.set()
        full.wait(30)
        with lock:  # before the answer: whoever has it may already ask for the next
            now -= 1
        request.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    bring(*(site.put(f"/{number}", wait) for number in range(3 * AT_ONCE)))
    assert most == AT_ONCE


def test_a_full_disk_ends_it_all(site: Site, small_disk: Path) -> None:
    url = site.put("/a.png", Answer(bytes(200_000)))
    with pytest.raises(DreamctlError, match="no space left") as raised:
        download([Wanted(url)], small_disk / "cache", allow_private=True, patience=Patience(tries=1))
    assert "free some space" in str(raised.value.hint)
    assert not list(small_disk.rglob("about.json"))


def test_names_from_lists_and_servers_stay_in_the_folder(site: Site, bring: Bring, tmp_path: Path) -> None:
    evil = {"Content-Disposition": 'attachment; filename="../../../etc/cron.d/x.png"'}
    item = bring(site.put("/a", Answer(PICTURE, headers=evil)))[0]
    assert item.path and item.path.name == "x.png" and item.path.parent.parent == tmp_path / "cache"
    item = bring(Wanted(site.url + "/a", name="..\\..\\luna"))[0]
    assert item.path and item.path.name == "luna.png" and item.path.parent.parent == tmp_path / "cache"
    about = json.loads((item.path.parent / "about.json").read_text())
    assert about["schema"] == 1 and about["file"] == "luna.png"


@pytest.mark.parametrize(
    ("said", "head", "name"),
    [
        ("a.jpg", b"\xff\xd8\xff", "a.jpg"),
        ("a.JPEG", b"\xff\xd8\xff", "a.jpeg"),
        ("a.jpg", b"RIFF1234WEBPVP8 ", "a.webp"),
        ("photo", b"\xff\xd8\xff", "photo.jpg"),
        ("a.b", b"not known", "a.b"),
        ("", b"GIF89a", "picture.gif"),
        ("..", b"GIF89a", "picture.gif"),
        (".hidden", b"GIF89a", "hidden.gif"),
        ("a/b\\c.png", b"\x89PNG\r\n\x1a\n", "c.png"),
        ("CON.png", b"\x89PNG\r\n\x1a\n", "_CON.png"),
        ("a\nb\x00.png", b"\x89PNG\r\n\x1a\n", "a_b_.png"),
        ("x.php?id=1", b"\xff\xd8\xff", "x.php_id=1.jpg"),
        ("about.json", b"\xff\xd8\xff", "about.jpg"),
        ("about.json", b"{}", "about_.json"),
        ("part", b"", "part_"),
        ("lock", b"", "lock_"),
    ],
)  # fmt: skip
def test_file_names(said: str, head: bytes, name: str) -> None:
    assert file_name(said, head) == name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", ""),
        ("inline", ""),
        ('attachment; filename="a b.jpg"', "a b.jpg"),
        ("attachment; filename=a.jpg", "a.jpg"),
        ('attachment; filename="é.jpg"', "é.jpg"),
        ("attachment; filename*=UTF-8''%C3%A9.jpg", "é.jpg"),
        ('attachment; filename="x\r\nEvil: 1.jpg"', "xEvil: 1.jpg"),
    ],
)
def test_content_disposition(header: str, name: str) -> None:
    assert disposition_name(header) == name
