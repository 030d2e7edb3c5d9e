"""Webhooks of providers: what is signed is verified, the rest is a hint, and a small server listens for both.

Nothing that comes in is believed any further than "look at this job": how it stands, the provider is asked.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import os
import queue
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from dreamctl import paths
from dreamctl.domain.quantities import spoken
from dreamctl.errors import DreamctlError
from dreamctl.files import explained, locked, replacing
from dreamctl.http import remember_secret
from dreamctl.postbox import PostBox, PostLimits

TOLERANCE = 300
"""Seconds that a signed message may be old, or ahead of this computer's clock."""
_REMEMBERED = 2 * TOLERANCE + 60.0  # one from a clock that is ahead may be played again for twice the tolerance
_MOST_REMEMBERED = 10_000
_LONGEST_ID = 256
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_SECRET = re.compile(r"[A-Za-z0-9_-]{40,}")

log = logging.getLogger(__name__)


# signatures


class Rejected(DreamctlError):
    """A message that is not taken: the reason as the end of "the webhook …"."""

    code = "webhook_rejected"


class WrongSignature(Rejected):
    """Not signed with this key; it may have been with another."""


def key_bytes(key: str) -> bytes:
    """The bytes of a signing key, `whsec_` and base64. Raises Rejected, without showing it."""
    try:
        found = base64.b64decode(key.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        found = b""
    if not found:  # with an empty key anybody could sign
        raise Rejected("cannot be checked: the signing key is none")
    return found


def verify(key: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a message that is signed with `key`, as Standard Webhooks has it; a repeated message has the same id.

    `now`: seconds since the epoch. Raises Rejected with the reason, WrongSignature where the key does not fit.
    """
    given = {name.lower(): value.strip() for name, value in headers.items()}
    missing = [name for name in _HEADERS if not given.get(name)]
    if missing:
        raise Rejected(f"has no header {missing[0]}")
    identity, stamp, signatures = (given[name] for name in _HEADERS)
    if len(identity) > _LONGEST_ID:
        raise Rejected("has a webhook-id that is too long")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        raise Rejected("has a webhook-timestamp that is no number of seconds")
    age = now - int(stamp)
    if abs(age) > TOLERANCE:
        side = "ago" if age > 0 else "in the future"
        raise Rejected(f"was signed {spoken(abs(age))} {side}, by this computer's clock")
    signed = b".".join((identity.encode("latin-1", "replace"), stamp.encode(), body))
    wanted = base64.b64encode(hmac.digest(key_bytes(key), signed, "sha256"))
    for part in signatures.split():
        version, _, value = part.partition(",")
        if version == "v1" and hmac.compare_digest(value.encode(errors="replace"), wanted):
            return identity
    raise WrongSignature("has no signature of this account's key")


class Seen:
    """The ids of messages that were taken, as long as their signatures count; the oldest go where there are too many.

    They are forgotten with the process: played again after that, a message is one look too many.
    """

    def __init__(self, most: int = _MOST_REMEMBERED) -> None:
        self._until: dict[str, float] = {}
        self._most = most
        self._lock = threading.Lock()

    def first(self, identity: str, now: float) -> bool:
        """Whether it is the first time; from now on it is not."""
        with self._lock:
            for known in [known for known, until in self._until.items() if until <= now]:
                del self._until[known]
            if identity in self._until:
                return False
            while len(self._until) >= self._most:
                del self._until[next(iter(self._until))]
            self._until[identity] = now + _REMEMBERED
            return True


# the secret path


def keep_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def read_private(path: Path) -> str | None:
    """What `keep_private` wrote, or None; a mode that lets others read is repaired."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            status = os.fstat(file.fileno())
            if os.name != "nt" and stat.S_IMODE(status.st_mode) & 0o077:
                os.fchmod(file.fileno(), 0o600)
                log.warning("%s could be read by others; it is private again", path)
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explained(error, path) from error


def path_secret() -> str:
    """The unguessable part of the path for what is not signed; made once for this user, and kept."""
    path = paths.data_dir() / "webhook-secret"
    with locked(paths.locks_dir() / "webhook-secret.lock", "the webhooks' secret path"):
        kept = read_private(path)
        if kept is None:
            kept = secrets.token_urlsafe(32)
            keep_private(path, kept + "\n")
    found = kept.strip()
    if not _SECRET.fullmatch(found):
        raise DreamctlError(f"{path} holds no secret path", hint="delete it: another is made, with other URLs")
    remember_secret(found)
    return found


def receiver_paths() -> dict[str, str]:
    """By provider, the path that a public URL must lead to: what `Receiver` takes. RunPod's is a secret."""
    return {"replicate": "/replicate", "runpod": f"/runpod/{path_secret()}"}


# the server

Sender = Literal["replicate", "runpod"]


@dataclass(frozen=True)
class Hint:
    """A provider says that there is news of its job `remote_id`; "" means of any of its jobs."""

    provider: Sender
    remote_id: str


class Receiver:
    """A server on (host, port) that puts a `Hint` into `hints` for each webhook, as long as the block lasts.

    `signing_key(again)`: Replicate's key, None where there is none; `again` says that it did not fit and may be
    another by now. Port 0 takes a free one, and `port` says which. Raises InvalidInput for an address that cannot be
    listened on, DreamctlError for one that is taken.
    """

    def __init__(
        self,
        address: tuple[str, int],
        hints: queue.Queue[Hint],
        *,
        path_secret: str,
        signing_key: Callable[[bool], str | None],
        limits: PostLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._address, self._hints, self._path_secret, self._key = address, hints, path_secret, signing_key
        self._limits, self._seen, self._clock = limits or PostLimits(), Seen(), clock
        self._box: PostBox | None = None

    def __enter__(self) -> Self:
        self._box = PostBox(self._address, self, self._limits)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._box:
            self._box.stop()

    @property
    def port(self) -> int:
        return self._box.port if self._box else self._address[1]

    def known(self, path: str) -> bool:
        """Whether webhooks come to `path`."""
        return self._sender(path) is not None

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Believe a message as far as it may be believed; the answer's status and text."""
        sender = self._sender(path)
        if sender is None:
            return 404, ""
        try:
            if sender == "replicate" and not self._seen.first(self._verified(headers, body), self._clock()):
                return 200, ""  # as for the first time, or it would be sent again and again
            hint = Hint(sender, _job_id(body))
        except Rejected as error:
            log.info("%s: a webhook %s", sender, error.message)
            return (401 if sender == "replicate" else 400), f"the webhook {error.message}\n"
        with contextlib.suppress(queue.Full):  # nobody looks; polling finds what this would have told
            self._hints.put_nowait(hint)
        return 200, ""

    def _sender(self, path: str) -> Sender | None:
        if path == "/replicate":
            return "replicate"
        given, wanted = path.encode(errors="replace"), f"/runpod/{self._path_secret}".encode()
        return "runpod" if hmac.compare_digest(given, wanted) else None

    def _verified(self, headers: Mapping[str, str], body: bytes) -> str:
        key, now = self._key(False), self._clock()
        if key is None:
            raise Rejected("cannot be checked: the signing key is not known")
        try:
            return verify(key, headers, body, now)
        except WrongSignature:
            newer = self._key(True)
            if newer in (None, key):
                raise
            return verify(str(newer), headers, body, now)


def _job_id(body: bytes) -> str:
    """The `id` that a body names, "" where it names none. Raises Rejected for what is no JSON."""
    if not body.strip():
        return ""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Rejected("is no JSON") from None
    named = said.get("id") if isinstance(said, dict) else None
    return named if isinstance(named, str) and named.isprintable() and len(named) <= _LONGEST_ID else ""
