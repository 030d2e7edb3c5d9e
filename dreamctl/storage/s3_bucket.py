"""Requests on one S3 bucket: each is tried again where it may help, and each foreign error becomes one of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from dreamctl.errors import DreamctlError, NotFound
from dreamctl.storage.base import Access, Passing, checked_key
from dreamctl.storage.patience import Line, Patience
from dreamctl.storage.s3_client import Service
from dreamctl.storage.s3_crew import Ask
from dreamctl.storage.s3_errors import NoBucket, NoSuchUpload, Place, code_of, no_bucket, translated

_UNTOLD = frozenset(("400", "403", "404"))  # statuses of a HEAD, whose reason only a GET tells
_WRITES = frozenset(("put_object", "upload_part", "create_multipart_upload", "complete_multipart_upload"))
_FOLLOWS = {
    "ContinuationToken": "NextContinuationToken",
    "KeyMarker": "NextKeyMarker",
    "UploadIdMarker": "NextUploadIdMarker",
}


class Bucket:
    """One bucket, and the prefix below which keys lie."""

    def __init__(self, name: str, prefix: str, access: Access) -> None:
        self.name, self.prefix = name, prefix
        self._access = access

    @cached_property
    def service(self) -> Service:
        try:
            return Service.open(self._access)
        except Exception as error:
            raise self._ours(error, f"open s3://{self.name}", "S3") from None

    @cached_property
    def _line(self) -> Line:
        host = self.service.host  # opened here, not by the thread of the first contact: it may ask people for a code
        return Line(lambda: host, self._contact)

    def full(self, key: str) -> str:
        """The key as the service knows it."""
        return self.prefix + checked_key(key)

    def shown(self, key: str) -> str:
        """The object's name for people."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def call(self, operation: str, action: str, patience: Patience | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one operation of boto3's client; `action` ends the sentence "no permission to …"."""
        return self._line.call(lambda: self._once(operation, action, **parameters), patience)

    def pages(self, operation: str, action: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All pages of a list."""
        while True:
            page = self.call(operation, action, **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            parameters |= {ours: page[theirs] for ours, theirs in _FOLLOWS.items() if page.get(theirs)}

    def look(self, key: str) -> dict[str, Any]:
        """The answer to a HEAD of the object; a refusal of it has no body, so a GET is asked why."""
        action, full = f"read {self.shown(key)}", self.full(key)
        service = self.service

        def once() -> dict[str, Any]:
            try:
                return dict(service.client.head_object(Bucket=self.name, Key=full))
            except Exception as error:
                if code_of(error) in _UNTOLD:
                    self._once("get_object", action, Key=full, Range="bytes=0-0")["Body"].close()
                raise self._ours(error, action) from None

        return self._line.call(once)

    def ask(self, key: str) -> Ask:
        """Operations on one object, for those who try again by themselves."""
        self._line.call(lambda: None)

        def once(operation: str, **parameters: Any) -> Mapping[str, Any]:
            if operation == "list_multipart_uploads":
                page = self._once(operation, f"look at {self.shown(key)}", Prefix=self.full(key), **parameters)
                return {"Uploads": [item for item in page.get("Uploads", ()) if item["Key"] == self.full(key)]}
            action = f"{'write' if operation in _WRITES else 'look at'} {self.shown(key)}"
            try:
                return self._once(operation, action, Key=self.full(key), **parameters)
            except NotFound as error:
                if "UploadId" in parameters and not isinstance(error, NoBucket):  # so Ceph calls an ended upload
                    raise NoSuchUpload(error.message, hint=error.hint) from None
                raise

        return once

    def pieces(self, body: Any, action: str, size: int) -> Iterator[bytes]:
        """The body of an answer in pieces of `size` bytes."""
        try:
            yield from body.iter_chunks(size)
        except Exception as error:
            raise self._ours(error, action) from None
        finally:
            body.close()

    def signed(self, client: Any, key: str, seconds: int) -> str:
        """A URL of the object that `client` signs; a client without keys gives the plain one."""
        parameters = {"Bucket": self.name, "Key": self.full(key)}
        try:
            return str(client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds))
        except Exception as error:
            raise self._ours(error, f"sign {self.shown(key)}") from None

    def credentials_end(self) -> tuple[bool, datetime | None]:
        """Whether the credentials are temporary, and when they die where that is known."""
        service = self.service
        try:
            return service.credentials_end()
        except Exception as error:
            raise self._ours(error, "sign") from None

    def _once(self, operation: str, action: str, **parameters: Any) -> dict[str, Any]:
        method = getattr(self.service.client, operation)
        try:
            return dict(method(Bucket=self.name, **parameters))
        except Exception as error:  # without its chain, which could show headers
            raise self._ours(error, action) from None

    def _contact(self) -> None:
        """Ask whether the bucket is there. A refusal is an answer: why, the next request tells."""
        client = self.service.client
        try:
            client.head_bucket(Bucket=self.name)
        except Exception as error:
            if code_of(error) == "404":
                raise no_bucket(Place(self.name, self.service.host, "")) from None
            problem = self._ours(error, f"look at s3://{self.name}")
            if isinstance(problem, Passing) or not code_of(error):
                raise problem from None

    def _ours(self, error: Exception, action: str, host: str | None = None) -> DreamctlError:
        return translated(error, Place(self.name, host or self.service.host, action))
