"""URLs lose their secrets, and lists of URLs are read line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamctl.errors import InvalidInput
from dreamctl.urls import MAX_URLS, is_url, public_name, read_list, source_name

PRESIGNED = (
    "https://b.s3.amazonaws.com/me/a.jpg?X-Amz-Credential=AKGEHEIM&X-Amz-Signature=GEHEIM&X-Amz-Expires=60",
    "https://b.example/me/a.jpg?sig=GEHEIM",
    "https://b.example/me/a.jpg?w=10&t=GEHEIM0123456789abcdefghij",  # a long value may be anything
    "https://b.example/me/a.jpg?GEHEIM0123456789abcdefghij",
    "https://me:GEHEIM@b.example/me/a.jpg",
    "https://b.example/me/a.jpg#GEHEIM",
)


@pytest.mark.parametrize("url", PRESIGNED)
def test_a_report_holds_no_secret(url: str) -> None:
    assert "GEHEIM" not in public_name(url) + source_name(url)
    assert "/me/a.jpg" in public_name(url)


def test_a_harmless_query_stays_and_the_source_is_host_and_path() -> None:
    url = "https://h.example:8443/view.php?id=5&w=800#top"
    assert public_name(url) == "https://h.example:8443/view.php?id=5&w=800"
    assert source_name(url) == "h.example:8443/view.php?id=5&w=800"
    assert source_name(PRESIGNED[0]) == "b.s3.amazonaws.com/me/a.jpg"
    assert public_name("https://h/\x1b[2Ja") == "https://h/ [2Ja"
    assert public_name("nonsense?key=GEHEIM") == "nonsense"


def test_words_that_are_meant_as_urls() -> None:
    assert all(map(is_url, ("http://a/b", "HTTPS://a", "ftp://a", "s3://bucket", "file:///etc")))
    assert not any(map(is_url, ("a.jpg", "./http:/a", "C:\\a", "a b://c", "://a", "")))


def test_a_text_file_holds_a_url_a_line(tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_bytes("\ufeffhttp://h/1.jpg\r\n\r\n# a comment\r\n  https://h/2.jpg  \r\n".encode())
    wanted, bad = read_list(file)
    assert [(item.url, item.where) for item in wanted] == [
        ("http://h/1.jpg", "urls.txt:1"),
        ("https://h/2.jpg", "urls.txt:4"),
    ]
    assert bad == []


def test_bad_lines_are_named_and_do_not_stop_the_others(tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_text(
        "a caption\nhttp://h/1.jpg\nftp://h/2.jpg\nhttp://me:GEHEIM@h/3.jpg\nhttp://h/4.jpg http://h/5.jpg\n"
    )
    wanted, bad = read_list(file)
    assert [item.url for item in wanted] == ["http://h/1.jpg"]
    assert [(line.where, line.reason) for line in bad] == [
        ("urls.txt:1", "is not an http or https URL"),
        ("urls.txt:3", "is not an http or https URL"),
        ("urls.txt:4", "holds a user name or a password"),
        ("urls.txt:5", "holds characters that no URL may hold"),
    ]
    assert "GEHEIM" not in str(bad) and all(line.advice for line in bad)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_with_a_heading_tells_captions_and_names(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "pictures.csv"
    rows = [["Caption", "URL", "filename"], ['"on a\nbeach"', "http://h/1.jpg", "one"], ["", "http://h/2.jpg"]]
    file.write_text("\ufeff" + "\n".join(delimiter.join(row) for row in rows) + "\n\n")
    wanted, bad = read_list(file)
    assert [(item.url, item.caption, item.name, item.where) for item in wanted] == [
        ("http://h/1.jpg", "on a beach", "one", "pictures.csv:3"),
        ("http://h/2.jpg", "", "", "pictures.csv:4"),
    ]
    assert bad == []


def test_a_csv_file_without_a_heading_has_urls_in_its_first_column(tmp_path: Path) -> None:
    file = tmp_path / "pictures.csv"
    file.write_text("http://h/1.jpg?a=1,on a beach\nnonsense,at night\n,\n")
    wanted, bad = read_list(file)
    assert [(item.url, item.caption) for item in wanted] == [("http://h/1.jpg?a=1", "")]
    assert [line.where for line in bad] == ["pictures.csv:2"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"", "names no URLs"),
        ("a.txt", b"# nothing\n", "names no URLs"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("a.csv", b"url\n", "names no URLs"),
        ("a.csv", b"url\n" + b"x" * 200_000, "is not CSV"),
        ("a.txt", b"http://h/a\n" * (MAX_URLS + 1), "names more than"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_is_an_error_that_names_it(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=says) as raised:
        read_list(tmp_path / name)
    assert name in raised.value.message
