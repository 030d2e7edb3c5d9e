"""The inner door of remote backends: what differs from provider to provider; `remote.py` does the rest, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamctl.backends.base import Look, NotYetKnown, OwnBase, Parcel, Support, Terms, Unknowable, Wishes
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.runfolder import RunFolder

__all__ = ["Draft", "NotYetKnown", "Order", "Provider", "Unknowable"]


@dataclass(frozen=True)
class Order:
    """A run that is to be submitted. `storage`, `access`: the storage where a worker may leave what it made, if any."""

    run: RunFolder
    parcel: Parcel
    wishes: Wishes
    terms: Terms
    storage: str | None = None
    access: dict[str, Any] | None = None


@dataclass(frozen=True)
class Draft:
    """A request ready to be sent. `body` holds secrets; `digest` is of it without them, and of nothing that varies.

    `place`, `contract`, `facts`, `forgotten`: for the journal (see `RemoteJob`).
    """

    place: str
    contract: str
    body: dict[str, Any] = field(repr=False)
    digest: str = ""
    forgotten: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Provider(Protocol):
    """A provider's API, in dreamctl's words. Built with a `Support`. Foreign errors leave it as DreamctlError."""

    name: str
    title: str

    def __init__(self, support: Support) -> None: ...

    @property
    def carrier(self) -> bool: ...

    @property
    def own_base(self) -> OwnBase | None: ...

    def problems(self, recipe: Recipe) -> list[str]:
        """As `Backend.check`: token, place, schema, what does not fit the recipe."""

    def terms(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> Terms:
        """As `RemoteBackend.terms`."""

    def ready(self, recipe: Recipe) -> None:
        """As `RemoteBackend.ready`."""

    def draft(self, order: Order) -> Draft:
        """The request, checked as far as it can be; no job yet, but a destination and a file may be sent."""

    def submit(self, draft: Draft) -> str:
        """Send the request once; returns the job's id. Raises AnswerLost where nobody knows whether it was accepted."""

    def find(self, run: RunFolder, job: RemoteJob) -> str | None:
        """The id of a job whose submission's answer was lost; None where it surely did not arrive.

        Raises Unknowable where that cannot be found out (now, or ever).
        """

    def report(self, run: RunFolder, job: RemoteJob) -> Report:
        """What the provider says of the job now. A job that it has forgotten is told as `expired`, not raised.

        Raises CredentialsError and ProviderError where it cannot be asked: the job is none the worse for it.
        """

    def cancel(self, job: RemoteJob) -> None:
        """Ask for the job's end; that it has ended already is no error."""

    def examine(self, ask_worker: bool) -> list[Look]:
        """As `RemoteBackend.examine`."""

    def adopt(self, remote_id: str) -> RemoteJob:
        """A journal for a job that was submitted elsewhere. Raises NotFound where there is none of that id."""
