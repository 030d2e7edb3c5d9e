"""Every error a user can meet, and the exit code it ends the program with.

    DreamctlError                 1  failed: unreadable picture, corrupt registry …
    ├── DiskFull                  1  the disk, or the user's share of it
    ├── InvalidInput              2  a flag, a value, a file or a setting is wrong
    │   └── ConsentRequired       2  the next step costs money or destroys, and nobody said yes
    ├── NotFound                  3  run, identifier, model, dataset, bucket: not there
    ├── CredentialsError          4  a token is missing or refused
    ├── ProviderError             5  a provider or the network failed
    ├── RunFailed                 6  the run ended in failure, was cancelled or timed out
    ├── StillRunning              8  only for `status --exit-status`
    ├── Interrupted             130  Ctrl-C
    └── Terminated              143  SIGTERM

Exceptions of libraries are translated into these once, in the adapter that calls the library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DreamctlError(Exception):
    """One sentence that says what is wrong and where, and a hint that says what to run or change next."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint


class DiskFull(DreamctlError):
    code = "disk_full"


class InvalidInput(DreamctlError):
    code = "invalid"
    exit_code = 2


class ConsentRequired(InvalidInput):
    code = "consent_required"


class NotFound(DreamctlError):
    code = "not_found"
    exit_code = 3


class CredentialsError(DreamctlError):
    code = "credentials"
    exit_code = 4


class ProviderError(DreamctlError):
    code = "provider"
    exit_code = 5


class RunFailed(DreamctlError):
    code = "run_failed"
    exit_code = 6


class StillRunning(DreamctlError):
    code = "still_running"
    exit_code = 8


class Signalled(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C wherever the program is: no `except Exception` on the way may swallow it."""


class Interrupted(DreamctlError):
    code = "interrupted"
    exit_code = 130


class Terminated(DreamctlError):
    code = "terminated"
    exit_code = 143


def signalled_error(raised: BaseException, message: str, hint: str | None = None) -> DreamctlError:
    """What Ctrl-C or SIGTERM is told as."""
    kind = Terminated if isinstance(raised, Signalled) else Interrupted
    return kind(message, hint=hint)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None when nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known one, or all of them."""
    names = sorted(known)
    near = nearest(word, names)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(names)}"
