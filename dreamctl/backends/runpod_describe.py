"""What an endpoint's worker is and accepts: asked by a job of a second, and remembered for a day."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl import __version__, paths
from dreamctl.backends.runpod_endpoint import Endpoint, Status, sentence
from dreamctl.domain.base import Stored, digest
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.errand import Abilities, Errand
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import ENDED
from dreamctl.domain.run import RunRecord
from dreamctl.errors import DreamctlError, InvalidInput, ProviderError
from dreamctl.files import read_json, write_json
from dreamctl.http import AnswerLost
from dreamctl.reporter import Reporter

_DAY = 86_400.0
_PATIENCE = 1800.0  # seconds: an endpoint that slept fetches the worker's image first
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.2, 1.4, 5.0
_SENT: Mapping[str, type[Stored]] = {"errand": Errand, "run": RunRecord, "recipe": Recipe, "dataset": Dataset}


def check_worker(endpoint: Endpoint, recipe: Recipe, reporter: Reporter) -> None:
    """Raises InvalidInput that says what to upgrade, where the endpoint's worker cannot train the recipe."""
    known = remembered(endpoint)
    if known and not objections(known, recipe):
        return  # what it did not accept it may accept now
    reporter.note(f"asking the worker of endpoint {endpoint.place} what it accepts; it may have to start first")
    found = objections(describe(endpoint), recipe)
    if found:
        raise InvalidInput(
            f"the worker of endpoint {endpoint.place} cannot train this: {'; '.join(found)}",
            field="runpod_endpoint",
            hint=f"deploy the worker of dreamctl {__version__} there",
        )


def objections(abilities: Abilities, recipe: Recipe) -> list[str]:
    """What stands against sending a worker of these abilities a run with this recipe."""
    ours = {name: int(noun.model_fields["schema_version"].default) for name, noun in _SENT.items()}
    old = [
        f"dreamctl {abilities.dreamctl} there reads a {name} of schema {abilities.accepts.get(name, 0)} at most, and "
        f"this one is of {schema}"
        for name, schema in ours.items()
        if abilities.accepts.get(name, 0) < schema
    ]
    if recipe.family not in abilities.families:
        old.append(f"it knows the families {', '.join(abilities.families) or '(none)'}, and not {recipe.family}")
    return old


def describe(endpoint: Endpoint) -> Abilities:
    """The worker's own answer. Raises InvalidInput where it is not dreamctl's worker, ProviderError without an answer.

    The job is cancelled where nobody waits for it any more.
    """
    body = {
        "input": Errand(op="describe").plain(),
        "policy": {"executionTimeout": 600_000, "ttl": int(_PATIENCE * 1000)},
    }
    try:
        job_id = endpoint.run(body)
    except AnswerLost as error:  # asking twice does no harm
        raise ProviderError(error.message, hint="nothing was paid for but this question: try again") from None
    status: Status | None = None
    try:
        status = _ended(endpoint, job_id)
    finally:
        if status is None:
            with contextlib.suppress(DreamctlError):
                endpoint.cancel(job_id)
    if status.told not in ("succeeded", "failed"):
        raise ProviderError(f"RunPod {status.state.lower().replace('_', ' ')} the question what the worker accepts")
    try:
        abilities = Abilities.parse(status.output, "the worker's answer")
    except (InvalidInput, TypeError):
        raise InvalidInput(_foreign(endpoint, status), field="runpod_schema", hint=_OTHER) from None
    _remember(endpoint, abilities)
    return abilities


_OTHER = (
    "if it is RunPod's dream-booth worker: `dreamctl config set runpod_schema dream-booth-v1`; "
    "else deploy dreamctl's worker there (see the README)"
)


def _foreign(endpoint: Endpoint, status: Status) -> str:
    said = sentence(status.error)
    reason = f"it answered: {said}" if said else "it answered something else"
    return f"endpoint {endpoint.place} does not run dreamctl's worker: asked what it accepts, {reason}"


def _ended(endpoint: Endpoint, job_id: str) -> Status:
    pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        status = endpoint.status(job_id)
        if status is None:
            raise ProviderError("RunPod has forgotten the question what the worker accepts", hint="try again")
        if status.told in ENDED:
            return status
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
    raise ProviderError(
        f"no worker of endpoint {endpoint.place} answered within {_PATIENCE / 60:.0f} minutes",
        hint="RunPod's console shows why none starts: `dreamctl doctor --backend runpod` shows how many there are",
    )


def remembered(endpoint: Endpoint) -> Abilities | None:
    """What the worker said within the last day."""
    try:
        kept = read_json(_memory(endpoint))
        age = time.time() - float(kept["asked"])
        return Abilities.parse(kept["abilities"], "") if 0 <= age < _DAY else None
    except (DreamctlError, KeyError, TypeError, ValueError):
        return None


def _remember(endpoint: Endpoint, abilities: Abilities) -> None:
    kept: dict[str, Any] = {"schema": 1, "asked": time.time(), "abilities": abilities.plain()}
    try:
        write_json(_memory(endpoint), kept)
    except DreamctlError:  # it is asked again then
        return


def _memory(endpoint: Endpoint) -> Path:
    return paths.cache_dir() / "workers" / f"runpod-{digest(endpoint.url)[:16]}.json"
