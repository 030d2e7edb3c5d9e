"""What every storage promises: one suite, run against each."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.storage.base import Changed, Storage, checked_key, content_key
from dreamctl.storage.local import LocalStorage

# Each is a fixture of conftest.py.
STORAGES = ("local", "gcs", "gcs_emulated")


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    found: Storage = request.getfixturevalue(request.param)
    return found


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


def test_create_only_and_replace_if_unchanged(storage: Storage, tmp_path: Path) -> None:
    (one, one_digest), (two, two_digest) = file_of(tmp_path, "one"), file_of(tmp_path, "two")
    first = storage.put("key", one, one_digest, create_only=True)
    with pytest.raises(Changed):
        storage.put("key", two, two_digest, create_only=True)
    second = storage.put("key", two, two_digest, if_version=first.version)
    with pytest.raises(Changed):
        storage.put("key", one, one_digest, if_version=first.version)
    with pytest.raises(Changed):
        storage.put("other", one, one_digest, if_version=first.version)
    assert storage.head("key") == second and storage.head("other") is None


def test_of_many_creators_one_wins(storage: Storage, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["storage"] == "gcs_emulated":
        pytest.skip("the emulator passes over conditions")
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
