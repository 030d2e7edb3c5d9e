"""Replicate's API of today: a trainer and its schema, a destination that is made where it is missing, a submission."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from dreamctl.backends.base import Support
from dreamctl.backends.provider import Order
from dreamctl.backends.replicate_api import Api, Training, is_word
from dreamctl.backends.replicate_inputs import CARRIED
from dreamctl.backends.replicate_schema import read_schema
from dreamctl.backends.replicate_trainers import Trainer
from dreamctl.domain.concept import Concept
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import ConsentRequired, InvalidInput, NotFound, did_you_mean
from dreamctl.runfolder import RunFolder

Match = Literal["yes", "no", "maybe"]


class Dialect(Protocol):
    """One of the two APIs that train at Replicate. `cancels`: it can end a training."""

    contract: str
    cancels: bool

    def trainer(self) -> Trainer:
        """The trainer that the settings name. Raises InvalidInput for one that cannot train, NotFound."""

    def destination(self, order: Order) -> str:
        """The model that is trained into; it is there when this returns."""

    def upload(self, file: Path) -> str:
        """The URL of the archive, after it was sent."""

    def request(self, order: Order, trainer: Trainer, place: str, inputs: Mapping[str, Any]) -> tuple[str, Any]:
        """Path and body of the submission."""

    def match(self, training: Training, run: RunFolder, job: RemoteJob) -> Match:
        """Whether a training of the list is the one that was submitted for the run."""

    def notes(self, trainer: Trainer) -> list[str]:
        """What the user should know of this API before paying."""


class Today:
    """See `Dialect`."""

    contract = "trainings"
    cancels = True

    def __init__(self, support: Support, api: Api) -> None:
        self._support, self._settings, self._api = support, support.settings, api

    def trainer(self) -> Trainer:
        name, _, version = (self._settings.replicate_trainer or "").partition(":")
        model = self._api.model(name)
        if model is None:
            raise NotFound(
                f"there is no trainer {name} at Replicate, or not for this token",
                field="replicate_trainer",
                hint="`dreamctl config explain replicate_trainer` says what it may be",
            )
        told = model.get("latest_version")
        latest = told if isinstance(told, Mapping) and is_word(told.get("id")) else {}
        version = version or latest.get("id") or self._api.newest_version(name) or ""
        if not version:
            raise InvalidInput(
                f"{name} has no version yet", field="replicate_trainer", hint="push one, or name another"
            )
        found = latest if version == latest.get("id") and "openapi_schema" in latest else None
        schema = read_schema((found or self._version(name, version)).get("openapi_schema"))
        if schema is None:
            raise InvalidInput(
                f"{name} cannot be trained: version {version[:12]} describes no TrainingInput",
                field="replicate_trainer",
                hint="name a trainer, such as ostris/flux-dev-lora-trainer",
            )
        return Trainer(name, version, schema, carries=CARRIED in schema.properties)

    def _version(self, name: str, version: str) -> dict[str, Any]:
        try:
            return self._api.version(name, version)
        except NotFound:
            raise NotFound(
                f"{name} has no version {version}", field="replicate_trainer", hint=f"{name} alone means its newest"
            ) from None

    def destination(self, order: Order) -> str:
        name = self._settings.replicate_destination or default_destination(self._api.account(), order.run.concept())
        if self._api.model(name) is not None:
            return name
        hardware, known = self._settings.replicate_hardware, self._api.hardware()
        if hardware not in known:
            raise InvalidInput(
                f"Replicate has no hardware {hardware!r}",
                field="replicate_hardware",
                hint=did_you_mean(hardware, known),
            )
        question = f"Replicate has no model {name} yet. Make it (private, to be run on {known[hardware] or hardware})?"
        if not order.wishes.yes and self._support.reporter.confirm(question) is not True:
            raise ConsentRequired(
                f"the model {name} is not at Replicate yet, and nobody agreed to make it",
                field="--yes",
                hint="say --yes, or name one that is there: dreamctl config set replicate_destination OWNER/NAME",
            )
        self._api.create_model(name, hardware)
        return name

    def upload(self, file: Path) -> str:
        return self._api.upload(file)

    def request(self, order: Order, trainer: Trainer, place: str, inputs: Mapping[str, Any]) -> tuple[str, Any]:
        body: dict[str, Any] = {"destination": place, "input": dict(inputs)}
        webhook = order.wishes.webhook or self._settings.webhook
        if webhook:
            body |= {"webhook": webhook, "webhook_events_filter": ["completed"]}
        return f"/models/{trainer.name}/versions/{trainer.version}/trainings", body

    def match(self, training: Training, run: RunFolder, job: RemoteJob) -> Match:
        version, wanted = training.get("version"), job.facts.get("version")
        if isinstance(version, str) and isinstance(wanted, str) and not _same_version(version, wanted):
            return "no"
        given = training.get("input")
        given = given if isinstance(given, Mapping) else {}
        if CARRIED in given:
            return "yes" if _run_of(given[CARRIED]) == run.id else "no"
        word = next((given[name] for name in ("trigger_word", "token_string") if name in given), None)
        if word is not None and word != run.concept().identifier:
            return "no"
        place = _place(training)
        return "maybe" if place is None else "yes" if place == job.place else "no"

    def notes(self, trainer: Trainer) -> list[str]:
        name = self._settings.replicate_destination
        if name is None:
            return ["the model goes to one of its own at Replicate, named by the identifier; it is made if missing"]
        missing = self._api.model(name) is None
        return [f"the model goes to {name} at Replicate" + (", which is not there yet and will be made" * missing)]


def default_destination(account: str, concept: Concept) -> str:
    """A model for each identifier. What cannot stand in a model's name is told apart by a digest."""
    word = re.sub(r"[^a-z0-9]+", "-", concept.identifier.lower()).strip("-")[:40].strip("-")
    if word != concept.identifier:
        mark = hashlib.sha256(concept.identifier.encode()).hexdigest()[:6]
        word = f"{word}-{mark}" if word else mark
    return f"{account}/dreamctl-{word}"


def _same_version(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _place(training: Training) -> str | None:
    """The destination, where the training shows it or what it pushed."""
    if isinstance(training.get("destination"), str):
        return str(training["destination"])
    output = training.get("output")
    version = output.get("version") if isinstance(output, Mapping) else None
    return version.partition(":")[0] if isinstance(version, str) and ":" in version else None


def _run_of(errand: Any) -> str | None:
    """The run's id in an errand's text."""
    try:
        return str(json.loads(errand)["run"]["id"])
    except (ValueError, KeyError, TypeError):
        return None
