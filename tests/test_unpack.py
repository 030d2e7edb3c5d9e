"""Zip archives from anywhere: nothing leaves the folder or unpacks without end, and each bad entry is one line."""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamctl.errors import DreamctlError
from dreamctl.unpack import ArchiveLimits, UnusableArchive, is_archive, unpack

Make = Callable[..., Path]
SMALL = ArchiveLimits(free=1 << 16)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes an archive of (name or ZipInfo, data), packed."""

    def write(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in entries:
                archive.writestr(name, data, compress_type=method)
        return path

    return write


def contents(files: tuple[tuple[Path, str], ...]) -> dict[str, bytes]:
    return {name: path.read_bytes() for path, name in files}


def below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_pictures_keep_their_names_and_captions_lie_beside_them(make: Make, tmp_path: Path) -> None:
    path = make(("top.jpg", b"1"), ("10_luna/a.png", b"2"), ("10_luna/a.txt", b"at night"), ("10_luna/b.caption", b"x"))
    unpacked = unpack(path, tmp_path / "out")
    assert contents(unpacked.files) == {"top.jpg": b"1", "10_luna/a.png": b"2"} and unpacked.bad == ()
    picture = unpacked.files[1][0]
    assert picture.with_suffix(".txt").read_bytes() == b"at night"
    assert picture.stem == "a"


def test_what_systems_put_into_archives_is_passed_over(make: Make, tmp_path: Path) -> None:
    names = ("__MACOSX/._a.jpg", ".DS_Store", "x/.hidden.jpg", "x/Thumbs.db", "IMG.MOV", "x/", "y\\", "meta.json")
    link = zipfile.ZipInfo("__MACOSX/link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    unpacked = unpack(make(*((name, b"") for name in names), (link, b"x"), ("a.jpg", b"1")), tmp_path / "out")
    assert contents(unpacked.files) == {"a.jpg": b"1"} and unpacked.bad == ()


EVIL = (
    "../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "..\\a.jpg", "C:\\a.jpg", "c:/a.jpg", "\\\\server\\share\\a.jpg",
    "//x/a.jpg",
)  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_leaves_the_archive_is_named_and_left_out(make: Make, tmp_path: Path, name: str) -> None:
    unpacked = unpack(make((name, b"evil"), ("good.jpg", b"1")), tmp_path / "in" / "out")
    assert contents(unpacked.files) == {"good.jpg": b"1"}
    assert [entry.reason for entry in unpacked.bad] == ["has a name that leaves the archive"]
    assert below(tmp_path) == {tmp_path / "a.zip", unpacked.files[0][0]}


@pytest.mark.parametrize(
    "name", ["CON.jpg", "a\nb.jpg", "x" * 5000 + ".jpg", "/".join("d" * 9000) + "/a.jpg", "a:b?.jpg", "c:a.jpg"]
)
def test_names_that_no_system_takes_are_read_all_the_same(make: Make, tmp_path: Path, name: str) -> None:
    unpacked = unpack(make((name, b"1")), tmp_path / "out")
    path, shown = unpacked.files[0]
    assert path.read_bytes() == b"1" and shown.isprintable()
    assert path.parent.parent == tmp_path / "out" and len(os.fsencode(path.name)) < 140


def test_twins_and_doubles(make: Make, tmp_path: Path) -> None:
    names = ["a.jpg", "A.jpg", "a.png", "é.jpg", unicodedata.normalize("NFD", "é") + ".jpg"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make(*((name, name.encode()) for name in names), ("a.jpg", b"later"), ("a.PNG", b"last"))
    unpacked = unpack(path, tmp_path / "out")
    assert contents(unpacked.files) == {
        "a.jpg": b"later", "A.jpg": b"A.jpg", "a.PNG": b"last",
        names[3]: names[3].encode(), names[4]: names[4].encode(),
    }  # fmt: skip
    assert [(entry.name, entry.reason[:24]) for entry in unpacked.bad] == [
        ("a.jpg", "is in the archive twice:"), ("a.PNG", "is in the archive twice:"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "says"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is not a regular file"), (stat.S_IFCHR, "is not")]
)
def test_links_and_devices_are_left_out(make: Make, tmp_path: Path, mode: int, says: str) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, (mode | 0o777) << 16
    unpacked = unpack(make((link, b"/etc/passwd"), ("a.jpg", b"1")), tmp_path / "out")
    assert contents(unpacked.files) == {"a.jpg": b"1"}
    assert [(entry.name, entry.reason[: len(says)]) for entry in unpacked.bad] == [("link.jpg", says)]


# bombs


def test_a_bomb_is_one_line_and_the_others_are_used(make: Make, tmp_path: Path) -> None:
    limits = ArchiveLimits(free=1 << 16, ratio=10, bytes=1 << 30)
    path = make(("bomb.png", bytes(1 << 20)), ("a.jpg", os.urandom(200_000)))
    unpacked = unpack(path, tmp_path / "out", limits)
    assert [name for _, name in unpacked.files] == ["a.jpg"]
    assert [(entry.name, entry.reason) for entry in unpacked.bad] == [("bomb.png", "unpacks to more than 65536 bytes")]
    assert sum(file.stat().st_size for file in below(tmp_path / "out")) == 200_000, "nothing of it is left"


def test_many_small_bombs_are_one_large_one(make: Make, tmp_path: Path) -> None:
    path = make(*((f"{number}.png", bytes(60_000)) for number in range(100)))
    with pytest.raises(UnusableArchive, match="unpacks to far more than its size"):
        unpack(path, tmp_path / "out", SMALL)
    assert sum(file.stat().st_size for file in below(tmp_path / "out")) <= max(1 << 16, 100 * path.stat().st_size)


def test_what_is_refused_counts_too(make: Make, tmp_path: Path) -> None:
    limits = ArchiveLimits(free=2 << 20, ratio=10)
    path = make(*((f"{number}.png", bytes(4 << 20)) for number in range(20)))
    with pytest.raises(UnusableArchive, match="unpacks to far more than its size"):
        unpack(path, tmp_path / "out", limits)


def test_what_packs_well_by_nature_is_no_bomb(make: Make, tmp_path: Path) -> None:
    assert len(unpack(make(("drawing.bmp", bytes(36_000_000))), tmp_path / "out").files) == 1


def test_too_many_entries_and_too_many_bytes(make: Make, tmp_path: Path) -> None:
    path = make(*((f"{number}.png", b"12345678") for number in range(20)))
    with pytest.raises(UnusableArchive, match="holds more than 19 entries"):
        unpack(path, tmp_path / "out", ArchiveLimits(entries=19))
    with pytest.raises(UnusableArchive, match="unpacks to far more"):
        unpack(path, tmp_path / "out", ArchiveLimits(bytes=159))
    assert len(unpack(path, tmp_path / "out2", ArchiveLimits(entries=20, bytes=160)).files) == 20


def test_the_count_of_entries_is_not_believed_and_found_across_pieces(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(*((f"{number}.png", b"1") for number in range(9)))
    data = bytearray(path.read_bytes())
    data[-14:-10] = struct.pack("<HH", 1, 1)  # the end record says that there is one
    path.write_bytes(data)
    for size in range(1, 60, 7):
        monkeypatch.setattr("dreamctl.unpack._CHUNK", size)
        with pytest.raises(UnusableArchive, match="more than 8 entries"):
            unpack(path, tmp_path / "out", ArchiveLimits(entries=8))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_in_one_go_are_not_opened(make: Make, tmp_path: Path, method: int) -> None:
    unpacked = unpack(make(("a.jpg", bytes(1000)), method=method), tmp_path / "out")
    assert unpacked.files == () and "method that is not read" in unpacked.bad[0].reason


def test_a_caption_is_no_novel(make: Make, tmp_path: Path) -> None:
    unpacked = unpack(make(("a.jpg", b"1"), ("a.txt", b"word " * 1_000_000)), tmp_path / "out")
    assert [(entry.name, entry.reason) for entry in unpacked.bad] == [("a.txt", "unpacks to more than 1 MiB")]
    assert not unpacked.files[0][0].with_suffix(".txt").exists()


# damage and lies


def patched(path: Path, name: bytes, central: int, value: bytes, local: int | None = None) -> Path:
    """The archive with a field of the entry `name` changed in its central record, and in its local one."""
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
    data[start + central : start + central + len(value)] = value
    if local is not None:
        start = data.rindex(b"PK\x03\x04", 0, data.index(name))
        data[start + local : start + local + len(value)] = value
    path.write_bytes(data)
    return path


def one_line(path: Path, folder: Path) -> str:
    unpacked = unpack(path, folder)
    assert contents(unpacked.files) == {"good.jpg": b"1"}
    assert [entry.name for entry in unpacked.bad] == ["bad.jpg"] and unpacked.bad[0].advice
    assert not [file for file in below(folder) if file.stem == "bad"], "nothing half is left"
    return unpacked.bad[0].reason


def test_encrypted_entries(make: Make, tmp_path: Path) -> None:
    path = patched(make(("bad.jpg", b"12345"), ("good.jpg", b"1")), b"bad.jpg", 8, b"\x01\x00", 6)
    assert one_line(path, tmp_path / "out") == "is encrypted"


@pytest.mark.parametrize("size", [10, 1_000_000, 4_000_000_000])
def test_entries_that_lie_about_their_size(make: Make, tmp_path: Path, size: int) -> None:
    path = make(("bad.jpg", os.urandom(100_000)), ("good.jpg", b"1"))
    assert "is damaged" in one_line(patched(path, b"bad.jpg", 24, struct.pack("<I", size), 22), tmp_path / "out")


def test_damaged_entries(make: Make, tmp_path: Path) -> None:
    path = make(("bad.jpg", bytes(range(256)) * 400), ("good.jpg", b"1"))
    whole = path.read_bytes()
    for place in range(60, 400, 17):
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        assert "is damaged" in one_line(path, tmp_path / f"out{place}")


def test_an_entry_whose_two_names_differ(make: Make, tmp_path: Path) -> None:
    path = make(("bad.jpg", b"12345"), ("good.jpg", b"1"))
    path.write_bytes(path.read_bytes().replace(b"bad.jpg", b"mad.jpg", 1))
    assert "is damaged" in one_line(path, tmp_path / "out")


def test_damaged_archives_are_one_clear_error_each(make: Make, tmp_path: Path) -> None:
    path = make(("a.jpg", os.urandom(300)), ("b.jpg", os.urandom(300)))
    whole = path.read_bytes()
    seen = set()
    for length in range(4, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(UnusableArchive) as raised:
            unpack(path, tmp_path / "out")
        assert raised.value.hint
        seen.add(raised.value.message)
    assert all(text.startswith(("is a damaged archive", "cannot be read")) for text in seen)


def test_any_flipped_bit_is_a_line_or_an_error_and_never_a_crash(make: Make, tmp_path: Path) -> None:
    path = make(("a.jpg", b"12345678" * 9), ("b/c.png", b"1"))
    whole = path.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x55
        path.write_bytes(data)
        try:
            unpacked = unpack(path, tmp_path / str(place))
        except UnusableArchive:
            continue
        assert below(tmp_path / str(place)) == {file for file, _ in unpacked.files}


def test_what_begins_like_an_archive(make: Make, tmp_path: Path) -> None:
    assert is_archive(make(("a.jpg", b"1"))) and is_archive(make())
    (tmp_path / "no").write_bytes(b"PK")
    assert not is_archive(tmp_path / "no") and not is_archive(tmp_path / "gone") and not is_archive(tmp_path)


def test_a_full_disk_is_an_error_of_its_own(make: Make, small_disk: Path) -> None:
    with pytest.raises(DreamctlError, match="no space left") as raised:
        unpack(make(("a.jpg", os.urandom(200_000))), small_disk / "out")
    assert not isinstance(raised.value, UnusableArchive)
