"""`dreamctl prepare` with what lies in storages: as if it lay here, and only what changed is fetched."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from dreamctl import paths, plugins
from dreamctl.cli.app import main
from dreamctl.errors import CredentialsError, DreamctlError, ProviderError
from dreamctl.files import is_locked
from dreamctl.images import MAX_BYTES
from dreamctl.storage.base import StoredObject
from dreamctl.workflows import bringing
from tests.pictures import noise, packed, quarters
from tests.servers.ceph import Ceph
from tests.servers.gcs import GcsServer
from tests.shelf import ENTRY, FOLDER, LOG, SLOW, Shelf, file_of, write
from tests.storage.stores import new_bucket, use_keys
from tests.workflows.preparing import snapshot

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
TREE: dict[str, int | str] = {
    "photos/a.png": 1, "photos/b.JPG": 2, "photos/b.txt": "on a beach", "photos/10_luna/c.png": 3,
    "photos/10_luna/c.caption": "asleep", "photos/.hidden.png": 4, "photos/a.json": "{}", "photos/__MACOSX/a.png": 5,
    "photos/no suffix": 6, "photos/bad.jpg": "<html>", "other/d.png": 7,
}  # fmt: skip


def data(seed: int | str) -> bytes:
    """A picture's bytes, or a text's."""
    return packed(quarters(60 + seed, 60), "PNG") if isinstance(seed, int) else seed.encode()


class Bucket(Protocol):
    url: str

    def put(self, key: str, content: int | str | bytes) -> None: ...

    def delete(self, key: str) -> None: ...


@dataclass
class OnShelf:
    folder: Path
    url: str

    def put(self, key: str, content: int | str | bytes) -> None:
        write(self.folder, key, content if isinstance(content, bytes) else data(content))

    def delete(self, key: str) -> None:
        file_of(self.folder, key).unlink()

    def asked(self, word: str = "get") -> list[str]:
        """What was asked for since the last time, as the log says."""
        log = self.folder.parent / LOG
        lines = log.read_text().splitlines()
        log.unlink()
        return sorted(line.partition(" ")[2] for line in lines if line.startswith(f"{word} "))


@dataclass
class OnS3:
    client: Any
    name: str
    url: str

    def put(self, key: str, content: int | str | bytes) -> None:
        body = content if isinstance(content, bytes) else data(content)
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


@dataclass
class OnGcs:
    bucket: Any
    url: str

    def put(self, key: str, content: int | str | bytes) -> None:
        self.bucket.blob(key).upload_from_string(content if isinstance(content, bytes) else data(content))

    def delete(self, key: str) -> None:
        self.bucket.blob(key).delete()


@pytest.fixture
def new_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], OnShelf]:
    monkeypatch.setenv(FOLDER, str(tmp_path / "shelf"))
    monkeypatch.setitem(plugins.BUILT_IN["storages"], *next(iter(ENTRY.items())))

    def made(name: str) -> OnShelf:
        folder = tmp_path / "shelf" / name
        folder.mkdir(parents=True)
        return OnShelf(folder, f"shelf://{name}")

    return made


@pytest.fixture
def shelf(new_shelf: Callable[[str], OnShelf]) -> OnShelf:
    return new_shelf("bucket")


@pytest.fixture
def s3(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> OnS3:
    use_keys(ceph_servers.plain, monkeypatch)
    monkeypatch.setenv("DREAMCTL_S3_ENDPOINT", ceph_servers.plain.endpoint)
    name = new_bucket(ceph_servers.plain)
    return OnS3(ceph_servers.plain.client(), name, f"s3://{name}")


@pytest.fixture
def gcs(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> OnGcs:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
    name = f"bucket-{secrets.token_hex(6)}"
    return OnGcs(gcs_server.client().create_bucket(name), f"gs://{name}")


@pytest.fixture(params=["shelf", "s3", "gcs"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """An empty bucket."""
    made: Bucket = request.getfixturevalue(request.param)
    return made


def fill(bucket: Bucket) -> None:
    for key, content in TREE.items():
        bucket.put(key, content)


def run(capsys: Capture, *words: str | Path) -> dict[str, Any]:
    """The JSON of a command that succeeds."""
    code = main(["prepare", *map(str, words), "--size", "64", "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    value: dict[str, Any] = json.loads(out)
    return value


def sources(report: dict[str, Any]) -> list[str]:
    return sorted(picture["source"] for picture in report["pictures"])


def told(report: dict[str, Any]) -> dict[str, str]:
    return {item["source"]: item["reason"] for item in report["skipped"]}


# as a folder here


@pytest.mark.parametrize("words", [[], ["--recursive"]])
def test_a_folder_of_a_bucket_gives_what_one_here_gives(
    bucket: Bucket, user: Path, capsys: Capture, words: list[str]
) -> None:
    fill(bucket)
    for key, content in TREE.items():
        path = user / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data(content))
    run(capsys, "photos", *words, "--out", "one")
    report = run(capsys, f"{bucket.url}/photos", *words, "--out", "two")
    assert snapshot(user / "one") == snapshot(user / "two")
    assert len(report["pictures"]) == (4 if words else 3)
    assert str(paths.cache_dir()) not in (user / "two" / "dataset.json").read_text()


def test_a_whole_bucket(shelf: OnShelf, capsys: Capture) -> None:
    fill(shelf)
    shelf.put("top.png", 9)
    assert sources(run(capsys, shelf.url, "--out", "one")) == ["bucket/top.png"]
    report = run(capsys, f"{shelf.url}/", "--recursive", "--out", "two")
    assert {"bucket/top.png", "bucket/other/d.png", "bucket/photos/10_luna/c.png"} <= set(sources(report))
    assert {picture["repeats"] for picture in report["pictures"]} == {1, 10}


def test_again_only_what_changed_is_fetched_and_made(bucket: Bucket, user: Path, capsys: Capture) -> None:
    fill(bucket)
    words = (f"{bucket.url}/photos", "--recursive")
    first = run(capsys, *words)
    assert run(capsys, *words)["made"] == []
    bucket.put("photos/a.png", 8)
    bucket.put("photos/new.png", 9)
    bucket.delete("photos/10_luna/c.png")
    if isinstance(bucket, OnShelf):
        bucket.asked()
    report = run(capsys, *words)
    if isinstance(bucket, OnShelf):
        assert bucket.asked() == ["photos/a.png", "photos/new.png"]
    assert (report["made"], report["removed"]) == (["a.jpg", "new.jpg"], ["c.jpg"])
    assert len(report["pictures"]) == len(first["pictures"])
    assert [file.name for file in (user / "processed").glob("*.txt")] == ["b.txt"]
    cached = {file.name for file in paths.cache_dir().rglob("*.*") if file.parent.parent.parent.name == "objects"}
    assert cached == {"a.png", "b.JPG", "b.txt", "bad.jpg", "new.png"}


def test_what_was_damaged_or_lost_here_is_fetched_again(shelf: OnShelf, capsys: Capture) -> None:
    fill(shelf)
    report = run(capsys, f"{shelf.url}/photos")
    (damaged,) = paths.cache_dir().rglob("a.png")
    (lost,) = paths.cache_dir().rglob("b.txt")
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    lost.unlink()
    shelf.asked()
    again = run(capsys, f"{shelf.url}/photos")
    assert (again["made"], again["digest"]) == ([], report["digest"])
    assert shelf.asked() == ["photos/a.png", "photos/b.txt"]


def test_a_caption_of_a_storage_that_changed(shelf: OnShelf, user: Path, capsys: Capture) -> None:
    fill(shelf)
    run(capsys, f"{shelf.url}/photos")
    assert (user / "processed" / "b.txt").read_text().strip() == "on a beach"
    shelf.put("photos/b.txt", b"\xff\xfe")
    report = run(capsys, f"{shelf.url}/photos")
    assert any(text.startswith("photos/b.txt cannot be read as UTF-8 text") for text in report["warnings"]), report[
        "warnings"
    ]
    shelf.put("photos/b.txt", "at night")
    report = run(capsys, f"{shelf.url}/photos")
    assert any(text.startswith("photos/b.txt is newer than") for text in report["warnings"])


# one object


def test_single_objects(bucket: Bucket, user: Path, capsys: Capture) -> None:
    fill(bucket)
    with zipfile.ZipFile(user / "heap.zip", "w") as archive:
        archive.writestr("in/x.png", data(8))
    bucket.put("sets/heap.zip", (user / "heap.zip").read_bytes())
    bucket.put("photos", data(9))
    bucket.put("photos/a.txt", "waving")
    url = bucket.url
    report = run(capsys, f"{url}/photos/a.png", f"{url}/photos/a.txt", f"{url}/sets/heap.zip", f"{url}/photos")
    assert sources(report) == ["a.png", "heap.zip/in/x.png", "photos"]
    assert (user / "processed" / "a.txt").read_text().strip() == "waving"
    folder = run(capsys, f"{url}/photos/", "--out", "folder")
    assert sources(folder) == ["photos/a.png", "photos/b.JPG", "photos/no suffix"]


def test_a_list_of_urls_in_a_bucket(shelf: OnShelf, capsys: Capture) -> None:
    shelf.put("a.png", 1)
    shelf.put("urls.txt", "ftp://h/x.png\ns3://bucket/y.png\n")
    report = run(capsys, f"{shelf.url}/a.png", f"{shelf.url}/urls.txt")
    assert told(report) == {
        "urls.txt:1": "is not an http or https URL",
        "urls.txt:2": "is in a storage, which a list cannot name",
    }
    assert report["skipped"][1]["advice"] == "name it on the line instead"
    assert [item["url"] for item in report["urls"]] == ["ftp://h/x.png", "s3://bucket/y.png"]
    shelf.put("urls.txt", "# none")
    assert main(["prepare", f"{shelf.url}/urls.txt"]) == 2
    assert "error: shelf://bucket/urls.txt names no URLs" in capsys.readouterr().err


def test_sources_of_one_name_and_objects_named_twice(
    new_shelf: Callable[[str], OnShelf], user: Path, capsys: Capture
) -> None:
    one, two = new_shelf("one"), new_shelf("two")
    one.put("photos/a.png", 1)
    two.put("photos/a.png", 2)
    words = [f"{one.url}/photos", f"{two.url}/photos/", f"{one.url}/photos/a.png", f"{one.url}/photos/"]
    report = run(capsys, *words)
    assert sources(report) == ["photos/a.png", "photos/a.png (2)"]
    assert run(capsys, *reversed(words))["made"] == []


# what is there besides


def test_what_is_no_picture_is_told_and_not_fetched(
    shelf: OnShelf, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("good.png", "clip.mp4", "heap.zip", "notes.txt", "clip.MOV", "huge.jpg", "good.txt", "plain"):
        shelf.put(f"photos/{key}", 1)
    honest = Shelf.list

    def large(self: Shelf, prefix: str = "", recursive: bool = True) -> Any:
        for item in honest(self, prefix, recursive):
            size = {"photos/huge.jpg": MAX_BYTES + 1, "photos/good.txt": 2 << 20}.get(item.key, item.bytes)
            yield StoredObject(item.key, size, item.sha256, item.version)

    monkeypatch.setattr(Shelf, "list", large)
    report = run(capsys, f"{shelf.url}/photos")
    assert shelf.asked() == ["photos/good.png", "photos/plain"]
    assert told(report) == {
        "photos/clip.mp4": "was not fetched: its name is no picture's",
        "photos/good.txt": "is too large for a caption",
        "photos/heap.zip": "is a zip archive",
        "photos/huge.jpg": "is larger than 1 GiB",
    }
    assert all(item["advice"] for item in report["skipped"])


def test_keys_of_strangers_stay_in_the_mirror(shelf: OnShelf, user: Path, capsys: Capture) -> None:
    long = "x" * 200 + "/" + "y" * 40
    good = ["a", "a/b.png", "a/b.png/c.png", "A.png", "a.png", "a.PNG", "ü.png", "ü.png", f"{long}.png", "con.png"]
    good += ["...png", "-rf.png", "lock", "fetched.jsonl.png", "a\u2028b.png".replace("\u2028", " "), "%2e%2e.png"]
    bad = [
        "../up.png",
        "x/../../up.png",
        "/root.png",
        "x//y.png",
        "./z.png",
        "new\nline.png",
        "back\\slash.png",
        "\0.png",
    ]
    for number, key in enumerate([*good, *bad]):
        shelf.put(f"photos/{key}", number)
    shelf.put("photos/a.txt", "twins")
    before = {path for path in user.parent.rglob("*") if path.name != LOG}
    report = run(capsys, f"{shelf.url}/photos", "--recursive", "--no-sheet")
    names = {f"photos/{key}" for key in good if not key.startswith(".")}
    assert set(sources(report)) == names
    assert set(told(report).values()) == {"has a key that is not fetched"}
    assert len(told(report)) == len(bad)
    home, dataset = user.parent / "home", user / "processed"
    assert all(
        path.is_relative_to(home) or path.is_relative_to(dataset) or path == home.parent / "shelf" / LOG
        for path in user.parent.rglob("*")
        if path not in before
    )
    captions = {picture["source"] for picture in report["pictures"] if caption_of(dataset, picture["file"])}
    assert captions == {"photos/a", "photos/a.png", "photos/a.PNG"}
    assert run(capsys, f"{shelf.url}/photos", "--recursive", "--no-sheet")["made"] == []


def caption_of(dataset: Path, file: str) -> str:
    caption = (dataset / file).with_suffix(".txt")
    return caption.read_text() if caption.is_file() else ""


def test_where_no_picture_is(shelf: OnShelf, capsys: Capture) -> None:
    shelf.put("photos/deep/a.png", 1)
    shelf.put("texts/a.txt", "words")
    for name in ("photos", "texts"):
        assert main(["prepare", f"{shelf.url}/{name}"]) == 1
        err = capsys.readouterr().err
        assert f"error: no file can be used: {name} holds no pictures\n" in err and "--recursive" in err


# errors


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("shelf://bucket/gone", 3, "nothing is at shelf://bucket/gone"),
        ("shelf://bucket/photo", 3, "nothing is at shelf://bucket/photo"),
        ("shelf://bucket/photos/gone.png", 3, "nothing is at shelf://bucket/photos/gone.png"),
        ("SHELF://bucket/gone", 3, "nothing is at shelf://bucket/gone"),
        ("shelf://none/photos", 3, "there is no bucket 'none'"),
        ("shelf://", 2, "names no bucket"),
        ("shelf://me:GEHEIM@bucket/photos", 2, "names no bucket"),
        ("shelf://bucket/photos?sig=GEHEIM", 3, "nothing is at shelf://bucket/photos?***"),
        ("shelf://bucket/photos/..", 2, "'photos/..' cannot be a key"),
        ("shelves://bucket/photos", 1, "is not an http or https URL"),
        ("file://photos", 2, "does not name a folder"),
        ("file:///gone/photos", 3, "/gone/photos does not exist"),
    ],
)  # fmt: skip
def test_what_is_no_source(shelf: OnShelf, user: Path, capsys: Capture, word: str, code: int, says: str) -> None:
    fill(shelf)
    assert main(["prepare", word]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "GEHEIM" not in err and "Traceback" not in err
    assert not (user / "processed").exists()


@pytest.mark.parametrize("method", ["head", "list", "get"])
@pytest.mark.parametrize(("kind", "code"), [(CredentialsError, 4), (ProviderError, 5)])
def test_where_a_storage_cannot_be_asked_nothing_is_taken_for_gone(
    shelf: OnShelf,
    user: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    kind: type[DreamctlError],
    code: int,
) -> None:
    fill(shelf)
    run(capsys, f"{shelf.url}/photos", "--recursive")
    cached = snapshot(paths.cache_dir())
    before = snapshot(user)
    shelf.put("photos/a.png", 8)

    def fails(*_: object) -> None:
        raise kind("the sky fell", hint="look up")

    monkeypatch.setattr(Shelf, method, fails)
    assert main(["prepare", f"{shelf.url}/photos", "--recursive"]) == code
    assert capsys.readouterr().err == "error: the sky fell\n  look up\n"
    assert snapshot(user) == before
    assert method == "get" or snapshot(paths.cache_dir()) == cached


def test_a_full_disk_is_told_before_anything_is_fetched(
    shelf: OnShelf, user: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shelf)
    monkeypatch.setattr(bringing, "free_bytes", lambda _: 10)
    assert main(["prepare", f"{shelf.url}/photos"]) == 1
    err = capsys.readouterr().err
    assert re.search(r"bytes are needed and 10 bytes are free", err) and "free some space" in err
    assert shelf.asked() == [] and not (user / "processed").exists()


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_a_disk_that_fills_while_objects_come(
    shelf: OnShelf, small_disk: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        shelf.put(f"photos/{number}.png", b"x" * (60 << 10))
    monkeypatch.setenv("DREAMCTL_HOME", str(small_disk))
    monkeypatch.setattr(bringing, "free_bytes", lambda _: 1 << 30)
    assert main(["prepare", f"{shelf.url}/photos"]) == 1
    err = capsys.readouterr().err
    assert "free some space" in err and "Traceback" not in err


# kills, and others at the same time


def slow(home: Path, seconds: float) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, SLOW: str(seconds), "DREAMCTL_HOME": str(home)}


def started(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shelf", "prepare", *words, "--size", "64"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(shelf: OnShelf, text: str) -> None:
    log, deadline = shelf.folder.parent / LOG, time.monotonic() + 60
    while not (log.is_file() and text in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_objects_come(shelf: OnShelf, user: Path, capsys: Capture, number: signal.Signals) -> None:
    for name in range(6):
        shelf.put(f"photos/{name}.png", packed(noise(400, 400, 50, name), "PNG"))
    child = started(slow(user / "home", 0.1), f"{shelf.url}/photos")
    wait_for(shelf, f"read photos/3.png {4 << 14}")
    child.send_signal(number)
    sent = time.monotonic()
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    assert child.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert out == "" and "Traceback" not in err
    assert not (user / "processed" / "dataset.json").exists()
    shelf.asked()
    again = started(slow(user / "home", 0), f"{shelf.url}/photos")
    assert again.wait(60) == 0, again.communicate()
    assert "photos/3.png 0" not in shelf.asked("read"), "what was received is gone on with"
    run(capsys, f"{shelf.url}/photos", "--out", "undisturbed")
    assert snapshot(user / "processed") == snapshot(user / "undisturbed")
    assert not list((user / "home").rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_storage_says_nothing(shelf: OnShelf, user: Path, number: signal.Signals) -> None:
    fill(shelf)
    child = started(slow(user / "home", 600), f"{shelf.url}/photos")
    wait_for(shelf, "read photos/a.png 0")
    sent = time.monotonic()
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert time.monotonic() - sent < 15
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number] and "Traceback" not in err


def kills(shelf: OnShelf, user: Path, count: int) -> None:
    """kill -9 at random moments of fetching and preparing: the next run ends as an undisturbed one."""
    for number in range(8):
        shelf.put(f"photos/{number}.png", packed(noise(300, 300, 50, number), "PNG"))
        shelf.put(f"photos/{number}.txt", f"scene {number}")
    begun = time.monotonic()
    assert started(slow(user / "home", 0.02), f"{shelf.url}/photos", "--out", "undisturbed").wait(60) == 0
    seconds = time.monotonic() - begun
    chance = random.Random(2026)
    for turn in range(count):
        environment = slow(user / f"home{turn}", 0.02)
        child = started(environment, f"{shelf.url}/photos", "--out", str(turn))
        time.sleep(seconds * chance.uniform(0.2, 1.0))
        child.kill()
        child.communicate()
        assert started(environment, f"{shelf.url}/photos", "--out", str(turn)).wait(60) == 0
        assert snapshot(user / str(turn)) == snapshot(user / "undisturbed"), turn
        assert not list((user / f"home{turn}").rglob("*.part"))


def test_after_kill_9_the_next_run_ends_as_an_undisturbed_one(shelf: OnShelf, user: Path) -> None:
    kills(shelf, user, 1)


@pytest.mark.soak
def test_after_fifty_kills(shelf: OnShelf, user: Path) -> None:
    kills(shelf, user, 50)


def test_a_journal_that_a_kill_cut_off(shelf: OnShelf, capsys: Capture) -> None:
    fill(shelf)
    run(capsys, f"{shelf.url}/photos")
    (journal,) = paths.cache_dir().rglob("fetched.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    shelf.asked()
    assert run(capsys, f"{shelf.url}/photos")["made"] == []
    assert len(shelf.asked()) == 1
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)
    journal.write_bytes(b"[]\nnull\n{}\n7\n\xff\n[1, 2, 3, 4]\n")
    assert run(capsys, f"{shelf.url}/photos")["made"] == []


def test_two_commands_on_one_bucket_follow_each_other(shelf: OnShelf, user: Path) -> None:
    fill(shelf)
    environment = slow(user / "home", 0.02)
    pair = [started(environment, f"{shelf.url}/photos", "--out", str(out)) for out in ("one", "two")]
    assert [child.wait(60) for child in pair] == [0, 0], [child.communicate() for child in pair]
    assert snapshot(user / "one") == snapshot(user / "two")
    assert len(shelf.asked()) == 5, "each object once"


def test_mirrors_that_nobody_used_for_a_season_go(shelf: OnShelf, capsys: Capture) -> None:
    fill(shelf)
    run(capsys, f"{shelf.url}/photos", "--out", "one")
    (old,) = (paths.cache_dir() / "objects").iterdir()
    long_ago = time.time() - 91 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    run(capsys, f"{shelf.url}/other", "--out", "two")
    (left,) = (paths.cache_dir() / "objects").iterdir()
    assert left != old and not is_locked(left / "lock")


# this computer's own folders


def test_a_file_url_is_the_folder_itself(user: Path, capsys: Capture) -> None:
    (user / "my photos").mkdir()
    (user / "my photos" / "a.png").write_bytes(data(1))
    url = (user / "my photos").as_uri()
    assert sources(run(capsys, url)) == ["my photos/a.png"]
    assert sources(run(capsys, user.as_uri(), "--recursive")) == [f"{user.name}/my photos/a.png"], "not its own dataset"
    assert not (paths.cache_dir() / "objects").exists()
    shutil.rmtree(user / "processed")
    assert sources(run(capsys, f"{url}/a.png")) == ["a.png"]


# S3's own errors


def test_odd_keys_of_s3(s3: OnS3, capsys: Capture) -> None:
    for number, key in enumerate(
        ("", "a.png", "/b.png", "a.png/c.png", "x/", "../d.png", "ü +%.png", "line\nbreak.png")
    ):
        s3.put(f"photos/{key}", number if key.endswith("png") else "")
    report = run(capsys, f"{s3.url}/photos", "--recursive")
    assert sources(report) == ["photos/a.png", "photos/a.png/c.png", "photos/ü +%.png"]
    assert sorted(told(report)) == ["photos/../d.png", "photos//b.png", "photos/line\\x0abreak.png"]


def test_s3_says_what_is_wrong(s3: OnS3, user: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(s3)
    run(capsys, f"{s3.url}/photos")
    before = snapshot(user)
    for url, code, says in ((f"{s3.url}/gone", 3, "nothing is at"), ("s3://no-such-bucket-here/x", 3, "no bucket")):
        assert main(["prepare", url]) == code
        assert says in capsys.readouterr().err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert main(["prepare", f"{s3.url}/photos"]) == 4
    assert "the secret key is wrong" in capsys.readouterr().err
    assert snapshot(user) == before
