"""What the registry tells: runs and model versions, and finding a version by its name."""

from __future__ import annotations

from dataclasses import dataclass

from dreamctl.domain.concept import Kind
from dreamctl.domain.identifiers import identifier_key
from dreamctl.domain.run import State, Target
from dreamctl.errors import InvalidInput, NotFound, did_you_mean


@dataclass(frozen=True)
class RunRow:
    """A run as the registry knows it. `updated`: UTC, ISO 8601."""

    id: str
    project: str
    key: str
    state: State
    identifier: str
    category: str
    target: Target
    backend: str
    remote_id: str | None
    base: str
    created: str
    updated: str
    kind: Kind
    human_name: str | None
    name: str | None
    method: str
    step: int
    steps: int
    message: str | None
    stamp: str


@dataclass(frozen=True)
class Progress:
    """How far a run was when it was looked at. `stamp`: of its events' file, and so of all this."""

    method: str
    step: int
    steps: int
    message: str | None
    stamp: str


@dataclass(frozen=True)
class Version:
    """Weights that know a concept: `sks@2` is the second of (sks, target, base digest)."""

    run_id: str
    identifier: str
    number: int
    target: Target
    family: str
    format: str
    base: str
    base_digest: str
    digest: str
    steps: int
    created: str

    @property
    def name(self) -> str:
        return f"{self.identifier}@{self.number}"


def find_version(versions: list[Version], name: str) -> Version:
    """The version that `sks` (the newest), `sks@2` or a run's id names.

    Raises NotFound with the nearest identifier, InvalidInput where versions on several bases share the name.
    """
    identifier, _, number = name.partition("@")
    key = identifier_key(identifier)
    found = [item for item in versions if identifier_key(item.identifier) == key or item.run_id == name]
    if not found:
        known = {item.identifier for item in versions}
        raise NotFound(
            f"no model version of {identifier!r}",
            field="identifier",
            hint=did_you_mean(identifier, known) if known else "teach one with `dreamctl train`",
        )
    if not number:
        return found[-1]
    found = [item for item in found if str(item.number) == number]
    if not found:
        raise NotFound(f"no version {name!r}", hint="`dreamctl identifiers` lists them")
    if len(found) > 1:
        runs = ", ".join(item.run_id for item in found)
        raise InvalidInput(f"{name!r} is there on {len(found)} bases", hint=f"name the run instead: {runs}")
    return found[0]
