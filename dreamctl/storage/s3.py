"""Amazon S3 and everything that speaks its language (R2, B2, MinIO, Ceph, Wasabi): `s3://bucket/folder`.

Small files go in one request, large ones in parts (`s3_parts`). Objects carry their SHA-256 as metadata, and the mark
of the `put` that stored them.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from dreamctl.domain.quantities import spoken
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import Stamp, sha256_file
from dreamctl.http import remember_secret
from dreamctl.plugins import require
from dreamctl.storage import s3_parts
from dreamctl.storage.base import (
    Access,
    Changed,
    Denied,
    Link,
    Passing,
    Progress,
    StoredObject,
    Ticket,
    Unfinished,
    bucket_and_prefix,
    check_lifetime,
    checked_key,
)
from dreamctl.storage.links import opens
from dreamctl.storage.patience import Patience, patiently
from dreamctl.storage.receiving import receive
from dreamctl.storage.s3_bucket import Bucket
from dreamctl.storage.s3_errors import NoBucket
from dreamctl.storage.slices import Slice, Source

MOST_AT_ONCE = 5 * 10**9  # what S3 takes in one request, and so what can be put under a condition
_AT_ONCE = 2 << 20  # what is larger goes in parts, which get through on lines that are cut often
_PIECE = 1 << 18  # of a download; what came of one when its connection is cut is fetched again
_TYPES = {".zip": "application/zip", ".json": "application/json"}
_SECRETS = frozenset(("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token"))

log = logging.getLogger(__name__)


class S3Storage:
    """One bucket, and the prefix below which its keys lie."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        require("boto3", "boto3", "s3")
        self._access = access or Access()
        self._bucket = Bucket(*bucket_and_prefix(url, "s3"), self._access)

    @property
    def access(self) -> Access:
        service = self._bucket.service
        endpoint = self._access.s3_endpoint if service.amazon else service.client.meta.endpoint_url
        return replace(self._access, s3_endpoint=endpoint, s3_region=service.client.meta.region_name)

    def place(self, key: str) -> str:
        return f"s3://{self._bucket.name}/{self._bucket.full(key)} at {self._bucket.service.host}"

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`. None also where the keys may not know: then `put` tells."""
        try:
            return _stored(key, self._bucket.look(key))
        except NoBucket:
            raise
        except NotFound:
            return None
        except Denied as error:  # without the right to list, a missing object is a forbidden one
            log.info("%s", error.message)
            return None

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
        """In one request where it is small or has a condition (services keep those for one request), else in parts."""
        about = {
            "Metadata": {"sha256": sha256, "put": secrets.token_hex(8)},
            "ContentType": _TYPES.get(Path(checked_key(key)).suffix.lower(), "application/octet-stream"),
        }
        with Source(file, sha256, stamp) as source:
            if create_only or if_version is not None:
                self._check_condition(key, create_only, if_version)
                # Without the quotes, as Amazon's own documentation sends it: Ceph takes them for a part of the tag.
                condition = {"IfNoneMatch": "*"} if create_only else {"IfMatch": str(if_version).strip('"')}
                self._put_at_once(key, source, {**about, **condition})
            elif source.size <= _AT_ONCE:
                self._put_at_once(key, source, about)
            else:

                def is_stored() -> bool:
                    return _is(self.head(key), source.size, sha256)

                s3_parts.send(self._bucket.ask(key), source, about, is_stored, ticket, progress)
            if progress:
                progress(source.size, source.size)
        return self._verified(key, source.size, sha256)

    def get(self, key: str, target: Path, progress: Progress | None = None) -> StoredObject:
        """By one request, and by more for the rest where that is cut; never of two versions."""
        stored = _stored(key, self._bucket.look(key))
        return receive(stored, target, lambda start: self._pieces(stored, start), progress)

    def list(self, prefix: str = "", recursive: bool = True) -> Iterator[StoredObject]:
        """By the bucket's own list."""
        bucket = self._bucket
        delimiter = {} if recursive else {"Delimiter": "/"}
        action = f"list {bucket.shown(prefix)}"
        for page in bucket.pages("list_objects_v2", action, Prefix=bucket.prefix + prefix, **delimiter):
            for item in page.get("Contents", ()):
                key = str(item["Key"]).removeprefix(bucket.prefix)
                if key and not key.endswith("/"):  # those are what consoles make for folders
                    yield StoredObject(key, int(item["Size"]), "", str(item["ETag"]))

    def delete(self, key: str) -> bool:
        """Remove the object; of a bucket with versions, the newest."""
        there = self.head(key) is not None
        self._bucket.call("delete_object", f"delete {self._bucket.shown(key)}", Key=self._bucket.full(key))
        return there

    def check_link(self, seconds: int | None) -> None:
        """A signature lives for seven days at most, and never longer than temporary credentials."""
        _, end = self._bucket.credentials_end()
        if seconds is None:
            return
        check_lifetime(seconds)
        left = (end - datetime.now(UTC)).total_seconds() if end else None
        if left is not None and left < seconds:
            raise CredentialsError(
                f"the temporary credentials for {self._bucket.service.host} die in {spoken(left)}, and the URL with "
                f"them; it is to work for {spoken(seconds)}",
                hint=f"use keys that last, or renew them, or ask for less: --expires {max(1, int(left) - 60)}s",
            )

    def link(self, key: str, seconds: int | None) -> Link:
        """Signed with version 4; a public one is opened by an ACL where the bucket does not open it already."""
        if seconds is not None:
            check_lifetime(seconds)
        bucket = self._bucket
        temporary, end = bucket.credentials_end()
        stored = _stored(key, bucket.look(key))
        if seconds is None:
            return Link(self._public(key, stored.bytes))
        note = "it is signed with temporary credentials, and dies with them" if temporary and not end else ""
        left = int((end - datetime.now(UTC)).total_seconds()) if end else seconds
        if left < seconds:  # long work since `check_link`
            seconds, note = max(left, 1), "the temporary credentials that sign it die sooner than was asked for"
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        url = bucket.signed(bucket.service.client, key, seconds)
        for name, value in parse_qsl(urlsplit(url).query):
            if name in _SECRETS:
                remember_secret(value)
                remember_secret(quote(value, safe=""))
        if not opens(url, stored.bytes, bucket.service.ca_bundle):
            raise ProviderError(
                f"{bucket.service.host} refuses the URL that was just signed for {bucket.shown(key)}",
                hint="check the region (s3_region) and the endpoint, and that the account may read (s3:GetObject)",
            )
        return Link(url, expires, note)

    def lend(self) -> dict[str, str]:
        """The bucket and its keys for a worker elsewhere, as RunPod's `s3Config` names them: a secret.

        Raises CredentialsError for temporary keys: their session's token has no place there.
        """
        bucket = self._bucket
        if bucket.credentials_end()[0]:
            raise CredentialsError(
                f"the keys for {bucket.service.host} are temporary, and cannot be lent to a worker",
                hint="use an access key that lasts, best one of its own for this bucket",
            )
        keys = bucket.service.credentials.get_frozen_credentials()
        for value in (keys.access_key, keys.secret_key):
            remember_secret(value)
        return {
            "accessId": keys.access_key,
            "accessSecret": keys.secret_key,
            "bucketName": bucket.name,
            "endpointUrl": bucket.service.client.meta.endpoint_url,
        }

    def abandon(self, key: str, state: dict[str, Any]) -> bool:
        """Remove the parts of the upload; of one whose id was never learnt, those of all uploads of this very key."""
        return s3_parts.remove(
            self._bucket.ask(key), str(state.get("upload_id", "")), float(state.get("begun", time.time()))
        )

    def unfinished(self) -> Iterator[Unfinished]:
        """By the bucket's list of multipart uploads."""
        bucket = self._bucket
        for page in bucket.pages("list_multipart_uploads", f"list {bucket.shown('')}", Prefix=bucket.prefix):
            for item in page.get("Uploads", ()):
                key = str(item["Key"]).removeprefix(bucket.prefix)
                yield Unfinished(key, item["Initiated"], {"upload_id": item["UploadId"]})

    def _pieces(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        bucket, action = self._bucket, f"read {self._bucket.shown(stored.key)}"
        try:
            answer = bucket.ask(stored.key)("get_object", Range=f"bytes={start}-", IfMatch=stored.version)
        except Changed:
            raise Changed(f"{bucket.shown(stored.key)} was replaced while it was read", hint="read it again") from None
        yield from bucket.pieces(answer["Body"], action, _PIECE)

    def _check_condition(self, key: str, create_only: bool, if_version: str | None) -> None:
        """For services that pass over conditions; whoever is quicker than this meets the condition itself."""
        there = self.head(key)
        if create_only and there:
            raise Changed(f"{self._bucket.shown(key)} is there already", hint="choose another name")
        if if_version is not None and (there is None or there.version != if_version):
            raise Changed(f"{self._bucket.shown(key)} was changed by somebody else", hint="look at it, then try again")

    def _put_at_once(self, key: str, source: Source, about: Mapping[str, Any]) -> None:
        bucket = self._bucket
        if source.size > MOST_AT_ONCE:
            raise InvalidInput(f"{source.path} is too large to be put under a condition", hint="5 GB are the most")
        if not source.trusted and sha256_file(source.path) != source.sha256:
            raise source.changed()
        ask, stop = bucket.ask(key), threading.Event()

        def once() -> object:
            body = Slice(source, 0, source.size, stop)  # a new one: what was cut is read from its start again
            try:
                return ask("put_object", Body=body, **about)
            except Passing:
                if body.failure:
                    raise body.failure from None
                raise

        try:
            patiently(once, Patience())
        except Changed:  # perhaps by ourselves: the answer to an earlier try may have been lost
            if bucket.look(key).get("Metadata", {}).get("put") != about["Metadata"]["put"]:
                raise
        source.check()

    def _verified(self, key: str, size: int, sha256: str) -> StoredObject:
        bucket = self._bucket
        stored = self.head(key)
        if stored is None:
            raise CredentialsError(
                f"{bucket.shown(key)} was stored, and cannot be looked at with these keys",
                hint="allow s3:GetObject too: what is uploaded is verified",
            )
        if not _is(stored, size, sha256):
            raise ProviderError(
                f"{bucket.shown(key)} is not what was sent: {bucket.service.host} has {stored.bytes} bytes of {size}, "
                f"with SHA-256 {stored.sha256 or 'unknown'}",
                hint="run the same command again",
            )
        return stored

    def _public(self, key: str, size: int) -> str:
        """The plain URL, tried without keys; the object is opened by an ACL where it is shut."""
        bucket, service, base = self._bucket, self._bucket.service, self._access.public_url
        url = f"{base}/{quote(bucket.full(key))}" if base else bucket.signed(service.unsigned(), key, 1)
        if opens(url, size, service.ca_bundle):
            return url
        hint = "let everybody read in the bucket's policy, or leave out --public and get a signed URL"
        try:
            action = f"make {bucket.shown(key)} public"
            bucket.call("put_object_acl", action, Key=bucket.full(key), ACL="public-read")
        except CredentialsError as error:
            raise CredentialsError(error.message, hint=hint) from None
        except DreamctlError as error:
            raise ProviderError(f"{service.host} makes no single objects public: {error.message}", hint=hint) from None
        if not opens(url, size, service.ca_bundle):
            raise ProviderError(f"{bucket.shown(key)} is not open to everybody at {url}", hint=hint)
        return url


def _stored(key: str, answer: Mapping[str, Any]) -> StoredObject:
    sha256 = str(answer.get("Metadata", {}).get("sha256", ""))
    return StoredObject(key, int(answer["ContentLength"]), sha256, str(answer["ETag"]))


def _is(stored: StoredObject | None, size: int, sha256: str) -> bool:
    return stored is not None and (stored.bytes, stored.sha256) == (size, sha256)
