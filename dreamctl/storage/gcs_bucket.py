"""What is asked of one bucket of Google Cloud Storage; names are whole names of objects."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from dreamctl.errors import NotFound, ProviderError
from dreamctl.http import remember_secret
from dreamctl.storage.base import Changed, Passing
from dreamctl.storage.gcs_access import Reach, check_signing, reach, sign
from dreamctl.storage.gcs_errors import Refused, no_bucket, refusal, told
from dreamctl.storage.gcs_session import TIMEOUTS, Session
from dreamctl.storage.links import opens
from dreamctl.storage.patience import Line, Patience, patiently

_PIECE = 1 << 20
_PUBLIC_SECONDS = 20.0  # until what was made public opens
_CALL = {"timeout": TIMEOUTS, "retry": None}  # `Line` tries again

Result = TypeVar("Result")
Found = dict[str, Any]
"""An object as Google describes it: size, crc32c, generation, metadata."""


class Bucket:
    """Requests on one bucket. Methods raise CredentialsError, NotFound for the bucket, ProviderError."""

    def __init__(self, name: str, credentials_file: str | None) -> None:
        self.name = name
        self._credentials_file = credentials_file
        self._line = Line(self._host, self._contact)

    def look(self, name: str) -> Found | None:
        """What lies under a name, or None."""
        blob = self._ask("read objects", lambda: self._bucket.get_blob(name, **_CALL))
        if blob is None:
            return None
        found = {"size": blob.size, "crc32c": blob.crc32c, "generation": blob.generation}
        return {**found, "metadata": blob.metadata or {}}

    def page(self, prefix: str, recursive: bool, token: str | None) -> tuple[list[Any], str | None]:
        """Blobs whose names begin with `prefix`, and the token of the next page, or None."""

        def ask() -> tuple[list[Any], str | None]:
            found = self._reach.client.list_blobs(
                self.name,
                prefix=prefix,
                delimiter=None if recursive else "/",
                page_token=token,
                fields="items(name,size,generation),nextPageToken",
                **_CALL,
            )
            return list(next(found.pages, [])), found.next_page_token

        return self._ask("list its objects", ask)

    def pieces(self, name: str, version: str, start: int) -> Iterator[bytes]:
        """The bytes of this very generation from `start` on. Raises Changed, and NotFound for the object too."""
        url = f"{self.endpoint}/storage/v1/b/{self.name}/o/{quote(name, safe='')}?alt=media&ifGenerationMatch={version}"
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "gzip"}  # so that gzip is not unpacked on the way
        with (
            told(self.name, "read objects"),
            self._reach.media.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer,
        ):
            if answer.status_code == 404:
                raise absent(f"gs://{self.name}/{name}")
            if answer.status_code != 206 and (start or answer.status_code != 200):
                raise refusal(answer, self.name, "read objects")
            yield from answer.raw.stream(_PIECE, decode_content=False)

    def delete(self, name: str, generation: int | None = None) -> bool:
        """Remove an object; False where none was."""
        from google.api_core.exceptions import NotFound as Missing

        def ask() -> bool:
            try:
                self._bucket.blob(name).delete(if_generation_match=generation, **_CALL)
            except Missing:
                return False
            return True

        return self._ask("delete objects", ask)

    def begin(
        self, name: str, metadata: dict[str, str], kind: str, size: int, match: int | None, patience: Patience
    ) -> str:
        """The URI of a new session. Raises Changed where the generation there is not `match` (0: none is)."""

        def ask() -> str:
            blob = self._bucket.blob(name)
            blob.metadata = metadata
            return str(
                blob.create_resumable_upload_session(
                    content_type=kind, size=size, checksum=None, if_generation_match=match, **_CALL
                )
            )

        return self._ask("write objects", ask, patience)

    def session(self, uri: str, size: int) -> Session:
        """The session behind a URI."""
        remember_secret(uri)
        return Session(self._reach.plain, uri, size, self.name)

    def cancel(self, uri: str, patience: Patience) -> bool:
        """End a session; False where it was not known."""
        return self._ask("end uploads", self.session(uri, 0).cancel, patience)

    def check_signing(self, seconds: int) -> None:
        """Raises InvalidInput and CredentialsError where no URL can be signed for so long."""
        check_signing(self._reach.signing, seconds)

    def signed(self, name: str, seconds: int) -> str:
        """A signed URL for reading an object."""
        with told(self.name, "sign URLs"):
            return sign(self._bucket.blob(name), self._reach.signing, seconds, self.endpoint)

    def open_to_all(self, name: str, url: str, size: int) -> None:
        """Let everybody read an object, until `url` opens it. Raises ProviderError where the bucket forbids it."""
        blob = self._bucket.blob(name)
        hint = (
            f"let allUsers read the bucket (`gcloud storage buckets add-iam-policy-binding gs://{self.name} "
            "--member=allUsers --role=roles/storage.objectViewer`), or leave out --public"
        )
        try:
            self._ask("make objects public", lambda: blob.acl.reload(**_CALL))  # `make_public` would, without timeouts
            self._ask("make objects public", lambda: blob.make_public(**_CALL))
        except (Refused, Changed) as error:
            raise ProviderError(f"gs://{self.name}/{name} cannot be made public: {error.message}", hint=hint) from None

        def tried() -> None:
            if not opens(url, size, os.environ.get("REQUESTS_CA_BUNDLE")):
                raise Passing(f"{url} does not open for everybody", hint=hint)

        patiently(tried, Patience(_PUBLIC_SECONDS))

    @property
    def endpoint(self) -> str:
        """Where the API answers."""
        return str(self._reach.client.api_endpoint)

    @functools.cached_property
    def _reach(self) -> Reach:
        with told(self.name, "be used"):
            return reach(self._credentials_file)

    @property
    def _bucket(self) -> Any:
        return self._reach.client.bucket(self.name)

    def _ask(self, action: str, request: Callable[[], Result], patience: Patience | None = None) -> Result:
        def once() -> Result:
            with told(self.name, action):
                return request()

        return self._line.call(once, patience)

    def _host(self) -> str:
        if "_reach" not in self.__dict__:  # it is the search for credentials that takes so long
            return "the server that gives tokens"
        return urlsplit(self.endpoint).hostname or self.endpoint

    def _contact(self) -> None:
        from google.api_core.exceptions import Forbidden

        with told(self.name, "look at it"):
            try:
                exists = self._bucket.exists(**_CALL)
            except Forbidden:  # an account may well use objects and not look at their bucket
                return
        if not exists:
            raise no_bucket(self.name)


def absent(url: str) -> NotFound:
    """The object is not there."""
    return NotFound(f"{url} is not there", field="key")
