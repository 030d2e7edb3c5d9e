"""URLs of pictures: which may be fetched, what they are called without their secrets, and lists of them in files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dreamctl import plugins
from dreamctl.errors import InvalidInput
from dreamctl.files import os_hint, os_reason
from dreamctl.http import printable, redact

LIST_SUFFIXES = (".txt", ".csv")
MAX_URLS = 10_000
MAX_LIST_BYTES = 16 << 20
_MAX_LENGTH = 8192
_LONG = 20  # a value of a query so long may be a signature or a token, whatever its name
_ADVICE = "name an address such as https://example.com/photo.jpg"


class BadURL(InvalidInput):
    """A URL that is not fetched: the reason as the end of "URL …", and advice as the hint."""


@dataclass(frozen=True)
class Wanted:
    """A URL to fetch. `caption` and `name` (of the file) come from a CSV file; `where` says which line named it."""

    url: str
    caption: str = ""
    name: str = ""
    where: str = ""


@dataclass(frozen=True)
class BadLine:
    """A line of a list whose URL is not fetched: what it says without secrets, `urls.txt:3`, why, and what to do."""

    url: str
    where: str
    reason: str
    advice: str


def is_url(word: str) -> bool:
    """Whether a word of the command line is meant as a URL, good or bad, and not as a path."""
    scheme, separator, _ = word.partition("://")
    return bool(separator) and scheme.isascii() and scheme.replace("+", "").isalnum()


def in_storage(word: str) -> bool:
    """Whether a URL names something in a storage, such as s3://bucket/photos."""
    scheme = word.partition("://")[0].lower()
    return is_url(word) and scheme not in ("http", "https") and scheme in plugins.names("storages")


def file_path(url: str, field: str) -> Path:
    """The path that file:///srv/photos means. Raises InvalidInput, about `field`, for one that means none here."""
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("localhost")
    if scheme.lower() != "file" or not path.startswith("/"):
        raise InvalidInput(f"{url!r} does not name a folder", field=field, hint="three slashes: file:///srv/datasets")
    return Path(unquote(path))


def check(url: str, any_port: bool = False) -> SplitResult:
    """The parts of a URL that may be fetched. Raises BadURL, without repeating the URL."""
    if len(url) > _MAX_LENGTH:
        raise BadURL(f"is longer than {_MAX_LENGTH} characters", hint=_ADVICE)
    if not url.lower().startswith(("http://", "https://")):
        raise BadURL("is not an http or https URL", hint=_ADVICE)
    if any(not char.isprintable() or char in ' <>"\\' for char in url):
        raise BadURL("holds characters that no URL may hold", hint="write them as %20 and so on")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadURL("is not a URL", hint=_ADVICE) from None
    if parts.username is not None or parts.password is not None:
        raise BadURL("holds a user name or a password", hint="download it yourself and name the file")
    if not host:
        raise BadURL("names no host", hint=_ADVICE)
    if port not in (None, 80, 443) and not any_port:
        raise BadURL(f"asks for port {port}, not 80 or 443", hint="--allow-private allows other ports too")
    return parts


def public_name(url: str) -> str:
    """The URL for reports: no user, no password, no fragment, and no query that may hold a secret."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    if not host:
        return printable(url.partition("?")[0])[:200]
    query = ""
    if parts.query:
        query = f"?{parts.query}" if _harmless(parts.query) else "?***"
    return printable(f"{parts.scheme}://{host}{parts.path}{query}")


def source_name(url: str) -> str:
    """What the manifest calls a URL: host and path, and a query that holds no secret."""
    return public_name(url).partition("://")[2].removesuffix("?***")


def _harmless(query: str) -> bool:
    if redact(f"?{query}") != f"?{query}":
        return False
    try:
        values = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return False
    return all(len(part) < _LONG for pair in values for part in pair)


# lists


def read_list(path: Path, called: str = "") -> tuple[list[Wanted], list[BadLine]]:
    """The URLs of a text file (one a line, `#` begins a comment) or of a CSV file, in errors `called` so or its path.

    A CSV file has a heading with `url` and perhaps `caption` and `name` (or `filename`), or none and URLs in its first
    column. Raises InvalidInput that names a file that is no such list, or that names nothing.
    """
    called = called or str(path)
    text = _text(path, called)
    rows = _csv_rows(path, text, called) if path.suffix.lower() == ".csv" else _text_rows(path, text)
    wanted, bad = [], []
    for item in rows:
        try:
            if is_url(item.url) and item.url.lower().partition("://")[0] in plugins.BUILT_IN["storages"]:
                raise BadURL("is in a storage, which a list cannot name", hint="name it on the line instead")
            check(item.url, any_port=True)
            wanted.append(item)
        except BadURL as error:
            bad.append(BadLine(public_name(item.url), item.where, error.message, error.hint or ""))
        if len(wanted) + len(bad) > MAX_URLS:
            raise InvalidInput(f"{called} names more than {MAX_URLS} URLs", field="SOURCE", hint="split it")
    if not wanted and not bad:
        raise InvalidInput(f"{called} names no URLs", field="SOURCE", hint="write one URL a line into it")
    return wanted, bad


def _text(path: Path, called: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise InvalidInput(f"{called} is too large for a list of URLs", field="SOURCE", hint="split it")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{called} is not UTF-8 text", field="SOURCE", hint="save it as UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{called}: {os_reason(error)}", field="SOURCE", hint=os_hint(error)) from error


def _text_rows(path: Path, text: str) -> Iterator[Wanted]:
    for number, line in enumerate(io.StringIO(text), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield Wanted(line, where=f"{printable(path.name)}:{number}")


def _csv_rows(path: Path, text: str, called: str) -> Iterator[Wanted]:
    first = text.partition("\n")[0]
    delimiter, heading = ",", [""]
    for candidate in ",;\t":
        cells = [cell.strip().strip('"').lower() for cell in first.split(candidate)]
        if "url" in cells:
            delimiter, heading = candidate, cells
            break
    columns = {name: place for place, name in reversed(list(enumerate(heading)))}
    url, caption = columns.get("url", 0), columns.get("caption", -1)
    name = columns.get("name", columns.get("filename", -1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            line = reader.line_num
            if (line == 1 and "url" in columns) or not any(cells) or cells[0].startswith("#"):
                continue
            where = f"{printable(path.name)}:{line}"
            yield Wanted(_cell(cells, url), " ".join(_cell(cells, caption).split()), _cell(cells, name), where)
    except csv.Error as error:
        raise InvalidInput(f"{called}:{reader.line_num} is not CSV: {error}", field="SOURCE") from error


def _cell(cells: list[str], place: int) -> str:
    return cells[place] if 0 <= place < len(cells) else ""
