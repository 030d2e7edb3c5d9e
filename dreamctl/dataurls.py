"""The URL that a provider is to fetch a dataset from, checked before anything is paid, from its form to what comes.

The URL is a secret: no sentence shows more of it than `dreamctl.urls.public_name`.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from dreamctl.domain.quantities import spoken
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.fetch import Patience
from dreamctl.http import remember_secret
from dreamctl.peek import Peek, Unfit, peek
from dreamctl.signedurls import expires_at
from dreamctl.urls import BadURL, check, public_name
from dreamctl.wire import FetchFailed, Network

_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(rf"bytes 0-[0-9]+/({_NUMBER.pattern})")
_DIGESTS = ("x-amz-meta-sha256", "x-goog-meta-sha256")  # as `dreamctl upload` writes them
_SIGN = "sign it again: dreamctl upload --url-only --expires 3d"
_UPLOAD = "`dreamctl upload --url-only` puts the dataset where a provider can fetch it, and prints the URL"
_ANEW = "upload the dataset again: dreamctl upload"


@dataclass(frozen=True)
class Fetchable:
    """A URL from which a zip archive of so many `bytes` comes; 0 where the server does not say how many."""

    bytes: int


class _Bad(Exception):
    """What is wrong: the end of "the dataset's URL …", and advice."""

    def __init__(self, reason: str, hint: str, kind: type[DreamctlError] = InvalidInput) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.kind = reason, hint, kind


def check_data_url(
    url: str,
    *,
    sha256: str = "",
    size: int = 0,
    needed: int = 0,
    allow_private: bool,
    network: Network | None = None,
    patience: Patience | None = None,
    now: datetime | None = None,
) -> Fetchable:
    """Make sure, as far as that can be known from here, that a provider gets the dataset's archive from `url`.

    `needed`: seconds for which a signature must still count. `sha256`, `size`: the archive's, where they are known.
    This computer and private networks count as reachable with `allow_private` alone. Raises InvalidInput for a URL
    that does not do, NotFound where nothing is there, ProviderError where the server cannot be asked.
    """
    if query := url.partition("?")[2]:
        remember_secret(query)
    try:
        check(url, any_port=True)
        _check_signature(url, needed, now or datetime.now(UTC))
        answer = peek(url, allow_private=allow_private, network=network, patience=patience)
        _check_status(answer)
        _check_kind(answer, url)
        return Fetchable(_check_size(answer, sha256, size))
    except BadURL as error:
        bad = _Bad(error.message, _UPLOAD)
    except Unfit as error:
        bad = _Bad(error.message, _UPLOAD)
    except FetchFailed as error:
        bad = _Bad(error.message, error.hint or _UPLOAD, ProviderError)
    except _Bad as error:
        bad = error
    raise bad.kind(f"the dataset's URL {public_name(url)} {bad.reason}", field="data_url", hint=bad.hint)


def _check_signature(url: str, needed: int, now: datetime) -> None:
    ends = expires_at(url)
    if ends is None:
        return
    moment = f"{ends.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    left = (ends - now).total_seconds()
    if left <= 0:
        raise _Bad(f"ran out at {moment}, {spoken(-left)} ago by this computer's clock", _SIGN)
    if left < needed:
        raise _Bad(f"runs out at {moment}, in {spoken(left)}: the training may begin {spoken(needed)} from now", _SIGN)


# what the server says

# What S3, Google and Azure write into their refusals (small letters), and what it means.
_REFUSALS = (
    ((b"expired", b"not valid in the specified time frame"), "has run out, says its server", _SIGN),
    ((b"signaturedoesnotmatch", b"signature did not match"), "has a signature that does not fit", _SIGN),
    ((b"invalidaccesskeyid", b"invalidtoken"), "is signed with keys that are not valid", _SIGN),
)
_STATUSES: dict[int, tuple[str, str, type[DreamctlError]]] = {
    401: ("is refused to strangers (401)", _UPLOAD, InvalidInput),
    403: ("is refused to strangers (403)", _UPLOAD, InvalidInput),
    404: ("leads to nothing (404)", _ANEW, NotFound),
    410: ("leads to nothing any more (410)", _ANEW, NotFound),
    416: ("leads to an empty file", _ANEW, InvalidInput),
}


def _check_status(answer: Peek) -> None:
    if answer.status in (200, 206):
        return
    said = answer.data[:4096].lower()
    if answer.status in (400, 401, 403):
        for words, reason, hint in _REFUSALS:
            if any(word in said for word in words):
                raise _Bad(f"{reason} ({answer.status})", hint)
    unknown = (f"was answered with status {answer.status}", "check the address", ProviderError)
    raise _Bad(*_STATUSES.get(answer.status, unknown))


# what comes

_ZIP = b"PK\x03\x04"
_KINDS = (
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK", "a part of a split zip archive"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
    (b"<?xml", "an XML document"),
    (b"{", "a JSON document"),
)
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<script", b"<!--")
# Services that show a page where a file was meant, and how they give the file.
_PAGES = (
    ("drive.google.com", "Google Drive's page", "it gives no large file without a browser; " + _UPLOAD),
    ("docs.google.com", "Google Drive's page", "it gives no large file without a browser; " + _UPLOAD),
    ("accounts.google.com", "Google's login page", "share the file with everybody who has the link, or " + _UPLOAD),
    ("dropbox.com", "Dropbox's preview page", "let the link end with dl=1 instead of dl=0"),
    ("onedrive.live.com", "OneDrive's page", "add download=1 to the link"),
    ("1drv.ms", "OneDrive's page", "add download=1 to the link"),
    ("sharepoint.com", "SharePoint's page", "add download=1 to the link"),
    ("github.com", "GitHub's page", "take the link behind `Raw` or `Download`"),
    ("huggingface.co", "the hub's page", "write /resolve/ instead of /blob/ in the link"),
    ("we.tl", "WeTransfer's page", "it gives nothing without a browser; " + _UPLOAD),
    ("wetransfer.com", "WeTransfer's page", "it gives nothing without a browser; " + _UPLOAD),
)


def _check_kind(answer: Peek, url: str) -> None:
    """Raise _Bad unless a zip archive begins there."""
    data = answer.data
    if data.startswith(_ZIP):
        if answer.whole and not zipfile.is_zipfile(io.BytesIO(data)):
            raise _Bad("gives a damaged zip archive: its end is missing", _ANEW)
        return
    if not data:
        raise _Bad("leads to an empty file", _ANEW)
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:20].lower().startswith(_PAGE) or answer.headers.get("content-type", "").lower().startswith("text/html"):
        page, hint = _page(url, answer.url)
        raise _Bad(f"gives {page} instead of the archive", hint)
    kind = next((kind for magic, kind in _KINDS if text.startswith(magic)), "something else")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "a WebP picture"
    elif data[257:262] == b"ustar":
        kind = "a tar archive"
    raise _Bad(f"gives {kind} instead of a zip archive", _UPLOAD)


def _page(*urls: str) -> tuple[str, str]:
    """Whose page comes from there, and how to get the file."""
    for url in urls:
        host = urlsplit(url).hostname or ""
        for name, page, hint in _PAGES:
            if host == name or host.endswith(f".{name}"):
                return page, hint
    return "a web page", _UPLOAD


def _check_size(answer: Peek, sha256: str, size: int) -> int:
    """The archive's size, 0 where it is not known. Raises _Bad for another archive than the expected one."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        known = 0
    elif answer.status == 206:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        known = int(found[1]) if found else 0
    else:
        length = answer.headers.get("content-length", "")
        known = int(length) if _NUMBER.fullmatch(length) else len(answer.data) if answer.whole else 0
    if size and known and known != size:
        raise _Bad(f"gives another archive: of {known} bytes instead of {size}", _ANEW)
    digests = {answer.headers[name].lower() for name in _DIGESTS if name in answer.headers}
    if answer.whole:
        digests = {hashlib.sha256(answer.data).hexdigest()}
    if sha256 and digests and sha256.lower() not in digests:
        raise _Bad(f"gives another archive: {min(digests)[:12]}… instead of {sha256[:12]}…", _ANEW)
    return known
