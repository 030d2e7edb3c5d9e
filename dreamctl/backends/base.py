"""The door to a place where runs are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import ProviderError
from dreamctl.reporter import Reporter
from dreamctl.runfolder import RunFolder
from dreamctl.settings import Settings

if TYPE_CHECKING:
    from dreamctl.storage.base import Access, Storage


class Unknowable(ProviderError):
    """Whether a submission arrived cannot be found out; the hint names the ways out."""

    code = "unknowable"


class NotYetKnown(Unknowable):
    """The same, but it will be known soon: whoever follows the run asks again."""

    code = "not_yet_known"


@dataclass(frozen=True)
class Support:
    """What a backend is built with. `storage(url, access)` opens a storage; without a URL the one of the settings."""

    settings: Settings
    project: Path
    reporter: Reporter
    storage: Callable[[str | None, Access | None], Storage]


@dataclass(frozen=True)
class Parcel:
    """A run's packed data on its way: the archive on this computer, and a URL (a secret) where it lies at one.

    `bytes` and `sha256` are the archive's. Without a file it lies at a URL that the user named.
    """

    file: Path | None
    sha256: str
    bytes: int
    url: str = field(default="", repr=False)


@dataclass(frozen=True)
class Wishes:
    """What the line asks of a job at a provider beside the recipe. `inputs`: KEY=VALUE for a foreign trainer.

    `at_url`: the packed dataset lies at a URL that the user names.
    """

    yes: bool = False
    max_hours: float | None = None
    webhook: str | None = None
    inputs: tuple[str, ...] = ()
    resubmit: bool = False
    at_url: bool = False


@dataclass(frozen=True)
class Terms:
    """What is told, and agreed to, before anything is sent or paid.

    `who`: where the run trains, as in "RunPod, endpoint abc". `notes`: what does not map, and what the user should know
    before paying. `hours`: a rough estimate of the time that is paid, None where none can be made; `measured` tells
    whether it comes from this very place. `seconds`: the most that the job may run, `limited_by` who sees to that.
    `price_per_hour`: US dollars, as the settings say. `carries`: "inline" (the archive goes in the request), "url".
    """

    who: str
    carries: Literal["inline", "url"]
    notes: tuple[str, ...] = ()
    hours: float | None = None
    seconds: int | None = None
    limited_by: Literal["provider", "follower"] | None = None
    price_per_hour: float | None = None

    @property
    def cost(self) -> float | None:
        """The estimate in US dollars."""
        return None if self.hours is None or self.price_per_hour is None else self.hours * self.price_per_hour


Look = tuple[str, Literal["ok", "warn", "missing"], str, str | None]
"""One thing looked at by `doctor`: its name, how it is, what was found, and advice."""


@dataclass(frozen=True)
class OwnBase:
    """What a foreign trainer teaches: the recipe that fits it, the source ("": any of the family) and the family."""

    recipe: str
    source: str
    family: str


class Backend(Protocol):
    """A backend brings a run to a computer, starts the training there, and brings events and `model/` back.

    It is built with a `Support`. Foreign errors leave it as DreamctlError. `remote`: it is a `RemoteBackend`.
    """

    name: str
    remote: bool

    def check(self, recipe: Recipe) -> list[str]:
        """What stands against training this recipe here, one sentence a problem; nothing is started, sent or paid.

        Raises CredentialsError, NotFound and ProviderError where the provider cannot be asked.
        """

    def submit(self, run: RunFolder) -> str:
        """Start the run, or let it go on from its last checkpoint; returns the place's own id of it."""

    def poll(self, run: RunFolder) -> bool:
        """Bring the run's new events home; whether `fetch` can bring what it made."""

    def fetch(self, run: RunFolder) -> None:
        """Bring `model/` home after success; nothing to do where it is already there."""

    def pause(self, run: RunFolder) -> float:
        """Seconds until the next `poll` is worth its while."""

    def interrupt(self, run: RunFolder) -> bool:
        """Ask the training to save a checkpoint and stop. False where it cannot be asked; it then goes on."""

    def cancel(self, run: RunFolder) -> None:
        """Stop the training for good."""


class RemoteBackend(Backend, Protocol):
    """A backend on somebody else's computer: it costs money, wants the data sent, and is followed from afar.

    `title`: its name for people ("RunPod"). `carrier`: it trains the recipe's own base with our own trainer; a
    translator maps the recipe onto a foreign trainer, which has `own_base`, or takes the name of one.
    """

    title: str

    @property
    def carrier(self) -> bool: ...

    @property
    def own_base(self) -> OwnBase | None: ...

    @property
    def near(self) -> bool:
        """Whether it can fetch from addresses of this computer's own network."""

    def terms(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> Terms:
        """What is to be told and agreed to before anything is sent. Raises InvalidInput for wishes that do not fit."""

    def ready(self, recipe: Recipe) -> None:
        """After consent, before anything is sent: ask the other side what it accepts. Raises InvalidInput."""

    def send(
        self, run: RunFolder, parcel: Parcel, wishes: Wishes, terms: Terms, journaled: Callable[[RemoteJob], None]
    ) -> str:
        """Submit the run, journaling before and after; `journaled` is called with the journal before the job is sent.

        Raises AnswerLost where nobody knows whether the job was accepted: the journal then says `submitting`.
        """

    def reconcile(self, run: RunFolder, resubmit: bool) -> bool:
        """Settle a submission whose answer was lost: adopt the job, or (True) it is known that it may be sent (again).

        Raises ProviderError where it cannot be known, naming the ways out; `resubmit`: the user takes the risk.
        """

    def examine(self, ask_worker: bool) -> list[Look]:
        """What `doctor` tells; `ask_worker`: start it for a moment, which costs that."""

    def attach(self, run: RunFolder, remote_id: str) -> None:
        """Journal a job that runs there already as this run's. Raises NotFound where there is none."""


def as_remote(backend: Backend) -> RemoteBackend | None:
    """The backend, where it is one at a provider."""
    return cast("RemoteBackend", backend) if backend.remote else None
