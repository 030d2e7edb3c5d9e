"""What every storage promises: one suite, run against each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.storage.base import Changed, Storage, checked_key, content_key
from dreamctl.storage.local import LocalStorage
from tests.servers.base import S3Server
from tests.storage.stores import Memory, random_file, s3_storage

# A storage on an empty bucket of each kind, and of S3 on each server.
STORAGES: dict[str, Callable[[pytest.FixtureRequest], Storage]] = {
    "local": lambda request: request.getfixturevalue("local"),
    "ceph": lambda request: _s3(request, request.getfixturevalue("ceph_servers").plain),
    "ceph over TLS": lambda request: _s3(request, request.getfixturevalue("ceph_servers").tls),
    "swift": lambda request: _s3(request, request.getfixturevalue("swift_server")),
    "gcs": lambda request: request.getfixturevalue("gcs"),
    "gcs emulator": lambda request: request.getfixturevalue("gcs_emulated"),
}
# What a server does not do, whoever asks.
LACKS = {
    "swift": {
        "replace": "Swift answers 501 to If-Match",
        "race": "Swift's containers are consistent in the end only: two creators may win",
    },
    "gcs emulator": {"race": "the emulator passes over conditions"},
}


def _s3(request: pytest.FixtureRequest, server: S3Server) -> Storage:
    return s3_storage(server, request.getfixturevalue("monkeypatch"))


@pytest.fixture(params=list(STORAGES))
def storage(request: pytest.FixtureRequest) -> Storage:
    return STORAGES[request.param](request)


@pytest.fixture
def lacks(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Skips the rest of a test where the server cannot do it."""
    kind = request.node.callspec.params["storage"]

    def skip(what: str) -> None:
        if reason := LACKS.get(kind, {}).get(what):
            pytest.skip(reason)

    return skip


def file_of(folder: Path, text: str) -> tuple[Path, str]:
    file = folder / f"{text}.bin"
    file.write_text(text)
    return file, sha256_file(file)


def test_what_was_put_is_there_and_comes_back(storage: Storage, tmp_path: Path) -> None:
    file, digest = file_of(tmp_path, "one")
    assert storage.head("a/b c/one.bin") is None
    stored = storage.put("a/b c/one.bin", file, digest)
    assert (stored.key, stored.bytes, stored.sha256) == ("a/b c/one.bin", 3, digest)
    assert storage.head("a/b c/one.bin") == stored
    assert storage.get("a/b c/one.bin", tmp_path / "back" / "x.bin") == stored
    assert (tmp_path / "back" / "x.bin").read_text() == "one"


def test_what_does_not_match_its_digest_is_not_stored(storage: Storage, tmp_path: Path) -> None:
    file, _ = file_of(tmp_path, "one")
    with pytest.raises(DreamctlError):
        storage.put("one.bin", file, "0" * 64)
    assert storage.head("one.bin") is None


def test_a_large_file_comes_back_and_both_ways_tell_how_far_they_are(storage: Storage, tmp_path: Path) -> None:
    file, digest = random_file(tmp_path / "large.bin", 12 << 20)
    sent, received = [], []
    stored = storage.put("large.bin", file, digest, progress=lambda *told: sent.append(told))
    assert (stored.bytes, stored.sha256) == (12 << 20, digest)
    assert storage.get("large.bin", tmp_path / "back", lambda *told: received.append(told)).sha256 == digest
    assert sha256_file(tmp_path / "back") == digest
    for told in (sent, received):
        assert told[-1] == (12 << 20, 12 << 20) and told == sorted(told)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["back", "large.bin"]


def test_an_empty_file(storage: Storage, tmp_path: Path) -> None:
    file, digest = file_of(tmp_path, "")
    storage.put("empty", file, digest)
    assert storage.get("empty", tmp_path / "back").bytes == 0
    assert (tmp_path / "back").read_bytes() == b""


def test_a_large_file_that_does_not_match_its_digest_is_not_stored(storage: Storage, tmp_path: Path) -> None:
    file, _ = random_file(tmp_path / "large.bin", 12 << 20)
    with pytest.raises(DreamctlError, match="changed while it was stored"):
        storage.put("large.bin", file, "0" * 64)
    assert storage.head("large.bin") is None and not list(storage.unfinished())


def test_create_only(storage: Storage, tmp_path: Path) -> None:
    (one, one_digest), (two, two_digest) = file_of(tmp_path, "one"), file_of(tmp_path, "two")
    first = storage.put("key", one, one_digest, create_only=True)
    with pytest.raises(Changed):
        storage.put("key", two, two_digest, create_only=True)
    assert storage.head("key") == first


def test_replace_if_unchanged(storage: Storage, tmp_path: Path, lacks: Callable[[str], None]) -> None:
    (one, one_digest), (two, two_digest) = file_of(tmp_path, "one"), file_of(tmp_path, "two")
    first = storage.put("key", one, one_digest)
    with pytest.raises(Changed):
        storage.put("other", one, one_digest, if_version=first.version)
    lacks("replace")
    second = storage.put("key", two, two_digest, if_version=first.version)
    with pytest.raises(Changed):
        storage.put("key", one, one_digest, if_version=first.version)
    assert storage.head("key") == second and storage.head("other") is None


def test_of_many_creators_one_wins(storage: Storage, tmp_path: Path, lacks: Callable[[str], None]) -> None:
    lacks("race")
    storage.head("key")  # the connection is there before the race begins
    won = []

    def create(text: str) -> None:
        file, digest = file_of(tmp_path, text)
        try:
            storage.put("key", file, digest, create_only=True)
            won.append(text)
        except Changed:
            pass

    threads = [threading.Thread(target=create, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    storage.get("key", tmp_path / "back")
    assert (tmp_path / "back").read_text() == won[0]


def test_what_is_there_is_listed(storage: Storage, tmp_path: Path) -> None:
    file, digest = file_of(tmp_path, "one")
    for key in ("photos/b.jpg", "photos/a b.jpg", "photos/10_luna/ü.jpg", "photographs.zip", "other/c.jpg"):
        storage.put(key, file, digest)
    assert sorted(item.key for item in storage.list("photos/")) == [
        "photos/10_luna/ü.jpg", "photos/a b.jpg", "photos/b.jpg",
    ]  # fmt: skip
    assert sorted(item.key for item in storage.list("photos/", recursive=False)) == ["photos/a b.jpg", "photos/b.jpg"]
    assert sorted(item.key for item in storage.list("photo", recursive=False)) == ["photographs.zip"]
    assert [(item.bytes, bool(item.version)) for item in storage.list("other/")] == [(3, True)]
    assert len(list(storage.list())) == 5 and not list(storage.list("nothing/"))


def test_an_upload_that_nobody_began_cannot_be_abandoned(storage: Storage, tmp_path: Path) -> None:
    assert not storage.abandon("key", {})
    ticket = Memory()
    file, digest = random_file(tmp_path / "large.bin", 6 << 20)
    storage.put("key", file, digest, ticket=ticket)
    storage.abandon("key", ticket.state or {})
    assert storage.head("key") is not None


def test_delete(storage: Storage, tmp_path: Path) -> None:
    file, digest = file_of(tmp_path, "one")
    storage.put("a/key", file, digest)
    assert storage.delete("a/key") and not storage.delete("a/key")
    with pytest.raises(NotFound):
        storage.get("a/key", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", ".", "a\\b", "a\nb"])
def test_no_key_leaves_the_bucket(storage: Storage, tmp_path: Path, key: str) -> None:
    file, digest = file_of(tmp_path, "one")
    with pytest.raises(InvalidInput):
        storage.put(key, file, digest)
    with pytest.raises(InvalidInput):
        storage.head(key)


def test_keys_by_content() -> None:
    assert content_key("datasets", "ab" * 32, "x.zip") == f"datasets/{'ab' * 8}/x.zip"
    assert checked_key("a/b") == "a/b"


# the local folder


def test_its_urls_are_files(tmp_path: Path) -> None:
    storage = LocalStorage((tmp_path / "a b#c").as_uri())
    file, digest = file_of(tmp_path, "one")
    storage.put("x/ü.zip", file, digest)
    assert Path(unquote(urlsplit(storage.link("x/ü.zip", None).url).path)).read_text() == "one"
    assert LocalStorage("file://localhost/srv/x").root == Path("/srv/x")


@pytest.mark.parametrize("url", ["file://srv/x", "file://./x", "file:/srv", "file://"])
def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="does not name a folder"):
        LocalStorage(url)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file, digest = file_of(tmp_path, "one")
    with pytest.raises(DreamctlError, match="cannot write into"):
        LocalStorage(f"{file.as_uri()}/below").put("key", file, digest)
