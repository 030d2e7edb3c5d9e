"""Google Cloud Storage: `gs://bucket/prefix`."""

from __future__ import annotations

import base64
import contextlib
import logging
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dreamctl.errors import CredentialsError, DreamctlError, ProviderError
from dreamctl.files import Stamp
from dreamctl.plugins import require
from dreamctl.storage.base import (
    Access,
    Changed,
    Denied,
    Link,
    Progress,
    StoredObject,
    Ticket,
    Unfinished,
    bucket_and_prefix,
    check_lifetime,
    checked_key,
)
from dreamctl.storage.gcs_bucket import Bucket, Found, absent
from dreamctl.storage.gcs_session import Gone, Hashed, send_file
from dreamctl.storage.links import opens
from dreamctl.storage.patience import Patience
from dreamctl.storage.receiving import receive
from dreamctl.storage.slices import Source

_NONCE = "dreamctl-put"  # metadata: which `put` wrote the object
_SESSIONS = 4  # that may end too early while one file is sent
_PIECE = 1 << 20
_ABANDON_SECONDS = 15.0

log = logging.getLogger(__name__)


class GcsStorage:
    """Objects of a bucket below a prefix; `version` is the generation, and the digest lies in the metadata."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        name, self.prefix = bucket_and_prefix(url, "gs")
        require("google.cloud.storage", "google-cloud-storage", "gcs")
        self._access = access or Access()
        self._bucket = Bucket(name, self._access.gcs_credentials)

    @property
    def access(self) -> Access:
        return self._access

    def place(self, key: str) -> str:
        return self._url(key)

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`; its digest as whoever put it recorded it. None also where nobody may know."""
        try:
            found = self._bucket.look(self._name(key))
        except Denied as error:  # without the right to list, a missing object is a forbidden one
            log.info("%s", error.message)
            return None
        return _stored(key, found) if found else None

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
        """Send the file in a resumable session; its checksum goes with the last bytes, and Google compares it.

        For that checksum it is read as a whole, whatever its stamp.
        """
        name = self._name(key)
        with Source(file, sha256, stamp) as file_:
            source = Hashed(file_)
            wanted = {
                "object": self._url(key),
                "bytes": source.size,
                "sha256": sha256,
                "match": 0 if create_only else if_version,
            }
            kept = ticket.state if ticket else None
            state = dict(kept) if kept and wanted.items() <= kept.items() else {**wanted, "nonce": secrets.token_hex(8)}
            if create_only or if_version is not None:
                there = self._bucket.look(name)
                if there and _ours(there, state):  # it was done, and whoever did it died before he knew
                    return self._verified(key, there, source)
                self._check(key, there, create_only, if_version)
            patience = Patience()
            for _ in range(_SESSIONS):
                try:
                    found = self._sent(key, source, state, ticket, patience, progress)
                    return self._verified(key, found, source)
                except (Gone, Changed) as trouble:
                    # The answer to the last bytes may have got lost, and what is there now be what they made.
                    there = self._bucket.look(name)
                    if there and _ours(there, state):
                        return self._verified(key, there, source)
                    if isinstance(trouble, Changed):
                        self._check(key, there, create_only, if_version)
                        raise
                    del state["session"]
        raise ProviderError(f"Google Cloud Storage ended each upload to {self._url(key)}", hint="try again later")

    def get(self, key: str, target: Path, progress: Progress | None = None) -> StoredObject:
        """Stream one generation of the object into `target`; without a recorded digest its CRC32C is compared."""
        name = self._name(key)
        found = self._bucket.look(name)
        if found is None:
            raise absent(self._url(key))
        stored = _stored(key, found)
        received = receive(stored, target, lambda at: self._bucket.pieces(name, stored.version, at), progress)
        if not stored.sha256 and _crc32c(target) != found["crc32c"]:
            target.unlink()
            raise ProviderError(f"{self._url(key)} came damaged: its CRC32C is another one", hint="try again")
        return received

    def list(self, prefix: str = "", recursive: bool = True) -> Iterator[StoredObject]:
        """The objects, page by page; what consoles make to show an empty folder is none."""
        token: str | None = None
        while True:
            blobs, token = self._bucket.page(self.prefix + prefix, recursive, token)
            for blob in blobs:
                if not blob.name.endswith("/"):
                    yield StoredObject(blob.name.removeprefix(self.prefix), blob.size, "", str(blob.generation))
            if not token:
                return

    def delete(self, key: str) -> bool:
        """Remove the object."""
        return self._bucket.delete(self._name(key))

    def check_link(self, seconds: int | None) -> None:
        """A URL for everybody needs no signature; another one needs a service account."""
        if seconds is None:
            return
        check_lifetime(seconds)
        self._bucket.check_signing(seconds)

    def link(self, key: str, seconds: int | None) -> Link:
        """A signed URL (version 4), or the object's own, after it was made public where it was not."""
        self.check_link(seconds)
        name = self._name(key)
        found = self._bucket.look(name)
        if found is None:
            raise absent(self._url(key))
        size = int(found["size"])
        if seconds is None:
            base = self._access.public_url or f"{self._bucket.endpoint}/{self._bucket.name}"
            url = f"{base.rstrip('/')}/{quote(name, safe='/~')}"
            if not opens(url, size, _ca_bundle()):
                self._bucket.open_to_all(name, url, size)
            return Link(url)
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        url = self._bucket.signed(name, seconds)
        if not opens(url, size, _ca_bundle()):
            raise CredentialsError(
                f"the signed URL of {self._url(key)} does not open it",
                hint="let the account that signs read the bucket (roles/storage.objectViewer), and check the clock",
            )
        return Link(url, expires)

    def abandon(self, key: str, state: dict[str, Any]) -> bool:
        """End the session of an unfinished upload."""
        checked_key(key)
        return "session" in state and self._bucket.cancel(state["session"], Patience(_ABANDON_SECONDS))

    def unfinished(self) -> Iterator[Unfinished]:
        """Google lists no sessions. One that is not ended dies by itself after a week, and costs nothing."""
        yield from ()

    def _sent(
        self,
        key: str,
        source: Hashed,
        state: dict[str, Any],
        ticket: Ticket | None,
        patience: Patience,
        progress: Progress | None,
    ) -> Found:
        """Send the file in the session of `state`, or in a new one, which is kept there before any byte is sent."""
        resumed = "session" in state
        if not resumed:
            kind, encoding = mimetypes.guess_type(key)
            kind = kind if kind and not encoding else "application/octet-stream"
            match = None if state["match"] is None else int(state["match"])
            metadata = {"sha256": source.sha256, _NONCE: state["nonce"]}
            state["session"] = self._bucket.begin(self._name(key), metadata, kind, source.size, match, patience)
            if ticket:
                ticket.keep(dict(state))
        session = self._bucket.session(state["session"], source.size)
        try:
            return send_file(session, source, resumed, patience, progress)
        except (Gone, Changed, ProviderError):  # it is over, or somebody can go on with it
            raise
        except BaseException:
            with contextlib.suppress(DreamctlError):
                session.cancel()
            raise

    def _verified(self, key: str, found: Found, source: Hashed) -> StoredObject:
        stored = _stored(key, found)
        if (stored.bytes, stored.sha256, found.get("crc32c")) == (source.size, source.sha256, source.crc32c()):
            return stored
        with contextlib.suppress(DreamctlError):
            self._bucket.delete(self._name(key), int(stored.version))
        raise ProviderError(f"{self._url(key)} arrived damaged, and was removed", hint="run the same command again")

    def _check(self, key: str, there: Found | None, create_only: bool, if_version: str | None) -> None:
        if create_only and there:
            raise Changed(f"{self._url(key)} is there already", hint="choose another name")
        if if_version is not None and (there is None or str(there["generation"]) != if_version):
            raise Changed(f"{self._url(key)} was changed by somebody else", hint="look at it, then try again")

    def _name(self, key: str) -> str:
        return self.prefix + checked_key(key)

    def _url(self, key: str) -> str:
        return f"gs://{self._bucket.name}/{self._name(key)}"


def _ca_bundle() -> str | None:
    """As requests trusts, with which everything else is asked."""
    return os.environ.get("REQUESTS_CA_BUNDLE")


def _stored(key: str, found: Found) -> StoredObject:
    recorded = str(found.get("metadata", {}).get("sha256", ""))
    digest = recorded if re.fullmatch(r"[0-9a-f]{64}", recorded) else ""
    return StoredObject(key, int(found["size"]), digest, str(found["generation"]))


def _ours(found: Found, state: dict[str, Any]) -> bool:
    return bool(found.get("metadata", {}).get(_NONCE) == state["nonce"])


def _crc32c(file: Path) -> str:
    import google_crc32c

    crc = 0
    with open(file, "rb") as stream:
        while piece := stream.read(_PIECE):
            crc = google_crc32c.extend(crc, piece)
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
