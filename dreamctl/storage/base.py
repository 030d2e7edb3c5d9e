"""The door of storages: whole objects under keys, verified, resumable, with conditions for publishing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from dreamctl.domain.quantities import LONGEST_LINK, spoken
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, ProviderError
from dreamctl.files import Stamp

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all; now and then, from the thread that asked for the work."""

_LONGEST_KEY = 1024  # bytes, as in S3 and Google Cloud Storage
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


class Changed(DreamctlError):
    """A condition of `put` does not hold: somebody else created or replaced the object."""

    code = "changed"


class Denied(CredentialsError):
    """The keys are good, and do not allow this."""


class Passing(ProviderError):
    """Trouble that may pass: what met it is tried again. `wait`: seconds that the server asked for."""

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


@dataclass(frozen=True)
class Access:
    """How storages are reached: what settings and line say beside the URL. A storage passes over what is not for it."""

    s3_endpoint: str | None = None
    s3_region: str | None = None
    s3_profile: str | None = None
    s3_addressing: str = "auto"
    s3_checksums: str = "auto"
    gcs_credentials: str | None = None
    public_url: str | None = None


_OF_THIS_COMPUTER = ("s3_profile", "gcs_credentials")  # they name a section of a file here, and a file here


def travelling(access: Access | Mapping[str, Any]) -> dict[str, Any]:
    """An access as plain data for other computers: without what only means something on this one."""
    plain = access if isinstance(access, Mapping) else vars(access)
    return {name: value for name, value in plain.items() if value is not None and name not in _OF_THIS_COMPUTER}


def arrived(access: Mapping[str, Any], settings: object) -> Access:
    """What `travelling` made, maybe elsewhere, with the keys that the settings of this computer name."""
    said = {name: value for name, value in travelling(access).items() if name in Access.__dataclass_fields__}
    own: dict[str, Any] = {name: getattr(settings, name, None) for name in _OF_THIS_COMPUTER}
    return Access(**said, **own)


@dataclass(frozen=True)
class StoredObject:
    """What is stored under a key. `version` is opaque: an ETag, a generation or a digest.

    `sha256`: hex; "" where whoever stored it recorded none.
    """

    key: str
    bytes: int
    sha256: str
    version: str


@dataclass(frozen=True)
class Link:
    """A URL under which anyone fetches an object, until `expires` (None: as long as the object lies there).

    A signed one is a secret. `note`: what people should know of it.
    """

    url: str = field(repr=False)
    expires: datetime | None = None
    note: str = ""


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun and not ended; `state` is what `abandon` takes."""

    key: str
    started: datetime
    state: dict[str, Any]


class Ticket(Protocol):
    """Remembers an upload under way, so that another process goes on with it or removes it."""

    @property
    def state(self) -> dict[str, Any] | None:
        """What was kept last, or None. JSON; as good as a password, since whoever has it may write the object."""

    def keep(self, state: dict[str, Any]) -> None:
        """Remember `state`; it is on the disk when this returns."""


class Storage(Protocol):
    """One bucket or folder, and the prefix below which its keys lie; built with its URL and an `Access`.

    An object is wholly there or not at all. Methods raise CredentialsError, NotFound (the bucket) and ProviderError;
    InvalidInput for a key that `checked_key` refuses. A dead endpoint is told within 15 seconds.
    """

    @property
    def access(self) -> Access:
        """How it is reached, with what the environment said of it: another shell reaches the same with this."""

    def place(self, key: str) -> str:
        """The object's name, the same however its storage was written; no URL."""

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`, or None."""

    def put(
        self,
        key: str,
        file: Path,
        sha256: str,
        *,
        create_only: bool = False,
        if_version: str | None = None,
        stamp: Stamp | None = None,
        ticket: Ticket | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Store a file whose hex SHA-256 is `sha256` and verify it; raises DreamctlError where it does not match.

        A file that still has the `stamp` that it had when `sha256` was computed need not be read for that again.
        Raises Changed, and stores nothing, where `create_only` and something is there, or where what is there is not
        of version `if_version`. With a `ticket`, goes on with the upload that it remembers. Ctrl-C, SIGTERM and a
        file that changed end the upload for good; after network trouble and `kill -9` the ticket's state can go on.
        """

    def get(self, key: str, target: Path, progress: Progress | None = None) -> StoredObject:
        """Write the object to `target`, atomically and verified; what an earlier try left is gone on with.

        The result's `sha256` is of what was written. Raises NotFound.
        """

    def list(self, prefix: str = "", recursive: bool = True) -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, by key; without `recursive` none with a slash behind it.

        Keys that `checked_key` refuses are among them, but not what consoles make to show an empty folder (`photos/`).
        Their `sha256` is not known here. Raises CredentialsError where listing is not allowed.
        """

    def delete(self, key: str) -> bool:
        """Remove the object; False where none was."""

    def check_link(self, seconds: int | None) -> None:
        """Whether `link` could work, before anything is sent.

        Raises InvalidInput for more seconds than a signature may live, CredentialsError where the credentials cannot
        sign or die earlier.
        """

    def link(self, key: str, seconds: int | None) -> Link:
        """A URL that works for so many seconds, or (None) for everybody and always; it has been tried.

        It works shorter, with a note, where the credentials die meanwhile. Raises as `check_link`, NotFound, and
        ProviderError where the object cannot be fetched by it.
        """

    def abandon(self, key: str, state: dict[str, Any]) -> bool:
        """Remove what an unfinished upload left; `state` as its ticket kept it. False where nothing was left."""

    def unfinished(self) -> Iterator[Unfinished]:
        """Uploads below the prefix that were begun and not ended, whoever began them, where the storage knows them."""


def checked_key(key: str) -> str:
    """The key itself: names separated by slashes, none of them empty, `.` or `..`. Raises InvalidInput."""
    if not key or "\\" in key or not key.isprintable() or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(f"{key!r} cannot be a key", field="key", hint="names separated by single slashes")
    if len(key.encode()) > _LONGEST_KEY:
        raise InvalidInput(f"a key of {len(key.encode())} bytes is too long", field="key", hint="shorten the file name")
    return key


def check_lifetime(seconds: int, most: int = LONGEST_LINK, who: str = "a signature of version 4") -> None:
    """Raises InvalidInput where a URL is to be signed for longer than `who` allows."""
    if seconds > most:
        raise InvalidInput(
            f"a URL cannot be signed for {spoken(seconds)}: {who} lives for {spoken(most)} at most",
            field="--expires",
            hint="sign it again later with `dreamctl upload --url-only`, or use --public",
        )


def content_key(kind: str, sha256: str, name: str) -> str:
    """The key of a file by its content: `datasets/<16 of the digest>/<name>`, so that nothing is sent twice."""
    return checked_key(f"{kind}/{sha256[:16]}/{name}")


def normal_url(url: str) -> str:
    """A storage's URL, the same for the same storage: its scheme in lower case, no slash at its end."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest.rstrip('/') or rest[:1]}"


def bucket_and_prefix(url: str, scheme: str) -> tuple[str, str]:
    """The two parts of `s3://bucket/some/prefix`; the prefix ends with a slash, or is "". Raises InvalidInput."""
    rest = url.removeprefix(f"{scheme}://")
    bucket, _, path = rest.partition("/")
    prefix = path.strip("/")
    if rest == url or not _BUCKET.fullmatch(bucket):
        raise InvalidInput(f"{url!r} names no bucket", field="storage", hint=f"for example {scheme}://bucket/folder")
    if any(char in prefix for char in "?#"):
        raise InvalidInput(
            f"{url!r} holds a character that means something else in a URL", field="storage", hint="no ? and no #"
        )
    try:
        return bucket, f"{checked_key(prefix)}/" if prefix else ""
    except InvalidInput as error:
        raise InvalidInput(f"{url!r} names no folder: {error.message}", field="storage", hint=error.hint) from None
