"""Uploads that were made before, in other words, from other shells, with odd names; and what is left of bad ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dreamctl import paths
from dreamctl.cli.app import main
from dreamctl.context import Context
from dreamctl.files import locked, stamp_of
from dreamctl.reporter import Silent
from dreamctl.storage.slices import Source, Unreadable
from dreamctl.workflows import unfinished
from dreamctl.workflows.upload import upload
from tests.fakes import write_dataset
from tests.servers.ceph import Ceph
from tests.servers.proxy import proxy
from tests.storage.stores import new_bucket, random_file, use_keys

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bucket(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, whose endpoint this user's settings name."""
    use_keys(ceph_servers.plain, monkeypatch)
    monkeypatch.setenv("DREAMCTL_S3_ENDPOINT", ceph_servers.plain.endpoint)
    return new_bucket(ceph_servers.plain)


@pytest.fixture
def killed(ceph_servers: Ceph, bucket: str, user: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What a killed upload of `one.bin` leaves: a ticket, and parts at the service. Its endpoint was a variable's."""
    file, _ = random_file(user / "one.bin", 11 << 20)
    monkeypatch.delenv("DREAMCTL_S3_ENDPOINT")
    with pytest.MonkeyPatch.context() as once, pytest.raises(Killed):
        once.setenv("AWS_ENDPOINT_URL_S3", ceph_servers.plain.endpoint)
        once.setattr("dreamctl.storage.s3_parts._complete", _killed)
        main_or_die(["upload", str(file), "--to", f"s3://{bucket}/team"])
    yield ceph_servers.plain.client()


class Killed(BaseException):
    """As after kill -9: nothing of the program runs any more."""


def _killed(*_: object) -> None:
    raise Killed


def main_or_die(words: list[str]) -> None:
    """`main`, whose error boundary would tell of Killed."""
    from dreamctl.cli.app import build_app

    build_app()(args=words, standalone_mode=False)


def tickets() -> list[Path]:
    return list((paths.data_dir() / "uploads").glob("*"))


def out_of(capsys: Capture) -> str:
    return capsys.readouterr().out.strip()


# the same storage in other words


def test_a_storage_is_the_same_however_it_is_written(bucket: str, user: Path, capsys: Capture) -> None:
    file, _ = random_file(user / "one.bin", 100)
    assert main(["upload", str(file), "--to", f"s3://{bucket}/team"]) == 0
    for other in (f"S3://{bucket}/team", f"s3://{bucket}/team/"):
        capsys.readouterr()
        assert main(["upload", str(file), "--to", other]) == 0
        assert "already there" in capsys.readouterr().err
        assert main(["upload", "--url-only", str(file), "--to", other]) == 0


def test_equal_datasets_are_sent_once_whatever_their_folders_are_called(
    bucket: str, user: Path, capsys: Capture
) -> None:
    write_dataset(user / "processed", count=2)
    shutil.copytree(user / "processed", user / "copy")
    to = ["--to", f"s3://{bucket}"]
    assert main(["upload", *to]) == main(["upload", "copy", *to]) == 0
    assert "already there" in capsys.readouterr().err


def test_what_the_line_says_of_a_storage_beats_what_is_recorded(bucket: str, user: Path, capsys: Capture) -> None:
    file, _ = random_file(user / "one.bin", 100)
    assert main(["upload", str(file), "--to", f"s3://{bucket}"]) == 0
    assert main(["upload", "--url-only", str(file), "--s3-endpoint", "http://127.0.0.1:9"]) == 5
    assert "cannot reach 127.0.0.1:9" in capsys.readouterr().err


# other shells


@pytest.mark.parametrize("mode", ["--resume", "--clean"])
def test_the_endpoint_of_another_shell_is_remembered(
    killed: Any, bucket: str, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, capsys: Capture, mode: str
) -> None:
    assert len(killed.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1 and len(tickets()) == 1
    assert main(["upload", mode]) == 0
    assert not killed.list_multipart_uploads(Bucket=bucket).get("Uploads") and not tickets()
    assert len(killed.list_objects_v2(Bucket=bucket).get("Contents", [])) == (mode == "--resume")


def test_a_bucket_that_cannot_be_asked_keeps_its_ticket(
    killed: Any, bucket: str, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing-at-all")
    assert main(["upload", "--clean"]) == 4
    out, err = capsys.readouterr()
    assert "is kept: " in err and "removed" not in out and len(tickets()) == 1


def test_what_was_sent_elsewhere_is_not_looked_for_here(
    killed: Any, bucket: str, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (ticket,) = tickets()
    ticket.write_text(ticket.read_text().replace(ceph_servers.plain.endpoint, ceph_servers.tls.endpoint))
    use_keys(ceph_servers.tls, monkeypatch)
    for mode, says in (("--resume", "would go on at"), ("--clean", "would be looked for at")):
        assert main(["upload", mode]) == 2
        assert says in capsys.readouterr().err and len(tickets()) == 1


def test_what_was_sent_to_a_bucket_that_is_gone_is_gone(
    killed: Any, bucket: str, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    use_keys(ceph_servers.plain, monkeypatch)
    (upload,) = killed.list_multipart_uploads(Bucket=bucket)["Uploads"]
    killed.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    killed.delete_bucket(Bucket=bucket)
    assert main(["upload", "--clean"]) == 0
    out, err = capsys.readouterr()
    assert "gone with it" in err and "removed" not in out and not tickets()


def test_two_of_the_same_follow_each_other(bucket: str, user: Path) -> None:
    file, _ = random_file(user / "one.bin", 100)
    held, released = threading.Event(), threading.Event()

    class Told(Silent):
        def note(self, message: str) -> None:
            if message == "waiting for the test":
                released.set()

    def hold() -> None:
        with every_lock():
            held.set()
            assert released.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    upload(Context.open(None, {}, Told()), file, f"s3://{bucket}")
    thread.join()
    assert released.is_set()


def every_lock() -> contextlib.ExitStack:
    """Of those that an upload may take."""
    stack = contextlib.ExitStack()
    for number in range(256):
        stack.enter_context(locked(paths.locks_dir() / f"upload-{number:02x}.lock", "the test"))
    return stack


# bad tickets, old copies


def test_a_ticket_that_was_being_written_stands_in_nobodys_way(user: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = paths.data_dir() / "uploads"
    folder.mkdir(parents=True)
    torn = folder / ".0123.tmp-01234567.json"
    torn.write_text("{")
    os.utime(torn, (0, 0))
    assert main(["upload", "--clean"]) == 0 and not torn.exists()
    (folder / "4567.json").write_text("{")
    assert main(["upload", "--resume"]) == 3
    assert main(["upload", "--clean"]) == 1
    assert "4567.json is not valid JSON" in capsys.readouterr().err


def test_a_copy_that_was_killed_is_removed_by_the_next(user: Path, tmp_path: Path, capsys: Capture) -> None:
    file, digest = random_file(user / "one.bin", 100)
    place = tmp_path / "store" / "files" / digest[:16]
    place.mkdir(parents=True)
    (place / ".one.tmp-01234567.bin").write_text("half")
    assert main(["upload", str(file), "--to", (tmp_path / "store").as_uri()]) == 0
    assert [path.name for path in place.iterdir()] == ["one.bin"]


def test_others_are_cleaned_up_after_consent_and_only_dreamctls(
    bucket: str, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    client = ceph_servers.plain.client()
    for key in ("datasets/0123456789abcdef/dataset.zip", "restic/backups/huge.bin"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert main(["upload", "--clean", "--to", f"s3://{bucket}"]) == 0  # they are young
    monkeypatch.setattr(unfinished, "_STALE", timedelta(seconds=-600))
    assert main(["upload", "--clean", "--to", f"s3://{bucket}"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2
    assert main(["upload", "--clean", "--to", f"s3://{bucket}", "--yes", "-q"]) == 0
    assert out_of(capsys) == f"s3://{bucket}/datasets/0123456789abcdef/dataset.zip"
    (left,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert left["Key"] == "restic/backups/huge.bin"


# what is remembered


def test_what_was_sent_is_remembered_though_its_url_failed(bucket: str, user: Path, capsys: Capture) -> None:
    file, _ = random_file(user / "one.bin", 100)
    to = ["--to", f"s3://{bucket}"]
    assert main(["upload", str(file), *to, "--public", "--public-url", "http://127.0.0.1:9/x"]) == 5
    capsys.readouterr()
    assert main(["upload", "--url-only", str(file), "--expires", "1h"]) == 0
    assert "X-Amz-Signature" in out_of(capsys)


def test_nothing_is_sent_that_cannot_be_remembered(
    bucket: str, user: Path, ceph_servers: Ceph, capsys: Capture
) -> None:
    write_dataset(user / "processed", count=2)
    paths.data_dir().mkdir(parents=True, exist_ok=True)
    paths.registry_file().write_text("no registry" * 1000)
    assert main(["upload", "--to", f"s3://{bucket}"]) == 1
    assert not ceph_servers.plain.client().list_objects_v2(Bucket=bucket).get("Contents")


@pytest.mark.parametrize(
    ("change", "same"),
    [(lambda path: path.chmod(0o600), True), (lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]), False)],
)
def test_a_file_that_is_changed_under_way_is_noticed_whatever_its_time_says(
    tmp_path: Path, change: Callable[[Path], object], same: bool
) -> None:
    file, digest = random_file(tmp_path / "one.bin", 1000)
    before = file.stat()
    with Source(file, digest, stamp_of(before)) as source:
        assert source.trusted
        change(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        if same:
            source.check()
        else:
            with pytest.raises(Unreadable, match="changed while it was stored"):
                source.check()


# odd names


def test_a_link_keeps_its_own_name(bucket: str, user: Path, capsys: Capture) -> None:
    file, _ = random_file(user / "0123456789", 100)
    (user / "my model.safetensors").symlink_to(file)
    assert main(["upload", "my model.safetensors", "--to", f"s3://{bucket}", "--json"]) == 0
    assert '/my model.safetensors"' in out_of(capsys)
    assert main(["upload", "--url-only", "my model.safetensors"]) == 0


@pytest.mark.parametrize("name", [b"odd\nname.b\nin", b"latin-\xe9.bin", b"a\\b.bin", "ü ß.zip".encode()])
def test_any_name_that_a_file_can_have(bucket: str, user: Path, capsys: Capture, name: bytes) -> None:
    file = user / os.fsdecode(name)
    file.write_bytes(b"content")
    assert main(["upload", str(file), "--to", f"s3://{bucket}"]) == 0
    assert main(["upload", "--url-only", str(file)]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_no_file(bucket: str, user: Path, capsys: Capture) -> None:
    (user / "folder").mkdir()
    for word, code, says in (
        ("nothing.bin", 3, "nothing.bin does not exist"),
        ("folder", 2, "is not a prepared dataset"),
        ("/dev/null", 2, "is neither a file nor a folder"),
    ):
        assert main(["upload", word, "--to", f"s3://{bucket}"]) == code
        assert says in capsys.readouterr().err


def test_a_full_disk(
    ceph_servers: Ceph, bucket: str, user: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_dataset(user / "processed", count=2)
    monkeypatch.setenv("DREAMCTL_HOME", str(small_disk))
    assert main(["upload", "--to", f"s3://{bucket}"]) == 1
    assert "no space left on device" in capsys.readouterr().err
    file, _ = random_file(user / "large.bin", 1 << 20)
    monkeypatch.setenv("DREAMCTL_HOME", str(user / "home"))
    assert main(["upload", str(file), "--to", (small_disk / "store").as_uri()]) == 1
    out, err = capsys.readouterr()
    assert out == "" and str(small_disk) in err and "no space left on device" in err
    assert not list((small_disk / "store").rglob("*.bin"))


def test_a_flaky_line_is_borne_by_the_whole_command(
    ceph_servers: Ceph, bucket: str, user: Path, capsys: Capture
) -> None:
    file, _ = random_file(user / "large.bin", 20 << 20)
    with proxy(ceph_servers.plain.endpoint) as line:
        line.cut_after = 3_000_000
        assert main(["upload", str(file), "--to", f"s3://{bucket}", "--s3-endpoint", line.url]) == 0
        assert line.cuts > 3
    client = ceph_servers.plain.client()
    (item,) = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() == file.read_bytes()
