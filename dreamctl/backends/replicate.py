"""Replicate behind the door of providers: dreamctl's own trainer there, or a recipe in the words of another's."""

from __future__ import annotations

import json
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamctl import credentials
from dreamctl.backends import replicate_dreambooth as dreambooth
from dreamctl.backends.base import Look, OwnBase, Parcel, Support, Terms, Wishes
from dreamctl.backends.provider import Draft, Order
from dreamctl.backends.remote import Remote
from dreamctl.backends.replicate_api import FILE_LIMIT, Api, checked_id, moment, written
from dreamctl.backends.replicate_doctor import looks
from dreamctl.backends.replicate_inputs import CARRIED, Translation, pictures_input, require, translated
from dreamctl.backends.replicate_report import reported
from dreamctl.backends.replicate_schema import assignments
from dreamctl.backends.replicate_search import found
from dreamctl.backends.replicate_trainers import Trainer
from dreamctl.backends.replicate_trainings import Dialect, Today
from dreamctl.backends.whereabouts import check_server, forgotten, missing, origin
from dreamctl.domain.base import digest
from dreamctl.domain.errand import Errand
from dreamctl.domain.quantities import bytes_text
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.errors import InvalidInput, NotFound, ProviderError
from dreamctl.runfolder import RunFolder, now

_STEPS = ("steps", "max_train_steps", "training_steps")
_UNSET = (
    "replicate_trainer is not set: name a trainer, as in `dreamctl config set replicate_trainer "
    "ostris/flux-dev-lora-trainer`, or dreamctl's own after pushing it"
)


class Replicate:
    """See `dreamctl.backends.provider.Provider`."""

    name = "replicate"
    title = "Replicate"

    def __init__(self, support: Support) -> None:
        self._support = support
        self._settings = support.settings

    @cached_property
    def _api(self) -> Api:
        return Api(self._settings.replicate_url, credentials.required("replicate", self._support.project))

    @cached_property
    def _dialect(self) -> Dialect:
        if self._settings.replicate_dialect == "dreambooth":
            return dreambooth.DreamBooth(self._support, self._api)
        return Today(self._support, self._api)

    @cached_property
    def _trainer(self) -> Trainer:
        """Looked up once: its schema is large, and its newest version must not change between two questions."""
        if not self._settings.replicate_trainer:
            raise InvalidInput(_UNSET, field="replicate_trainer")
        return self._dialect.trainer()

    @property
    def carrier(self) -> bool:
        return self._settings.replicate_dialect != "dreambooth" and self._trainer.carries

    @property
    def own_base(self) -> OwnBase | None:
        if self._settings.replicate_dialect == "dreambooth":
            return dreambooth.OWN_BASE
        known = self._trainer.known
        return known.own if known and not self.carrier else None

    # before anything is sent

    def problems(self, recipe: Recipe) -> list[str]:
        if not self._settings.replicate_trainer:
            return [_UNSET]
        try:
            trainer = self._trainer
        except InvalidInput as error:
            return [f"{error.message} ({error.hint})" if error.hint else error.message]
        found = []
        if not self._dialect.cancels and not self._settings.replicate_destination:
            found.append("replicate_destination is not set: the DreamBooth API wants a name for the model")
        if not trainer.carries:
            found += translated(trainer.schema, recipe).problems
        return found

    def terms(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> Terms:
        trainer = self._trainer
        known = None if trainer.carries else trainer.known
        notes = [*(known.notes if known else ()), *self._dialect.notes(trainer)]
        if trainer.carries:
            assignments(trainer.schema, wishes.inputs, _own_inputs(trainer))
        else:
            translation = translated(trainer.schema, recipe, wishes.inputs)
            require(translation, trainer.name)
            notes += _unsaid(translation, trainer)
        price = self._settings.price_per_hour if not known or known.hourly else None
        seconds = self._most_seconds(wishes, price)
        if seconds and not self._dialect.cancels:
            seconds = None
        elif seconds:
            notes.append("Replicate has no limit of time for a training: dreamctl cancels it, while it follows it")
        notes.append(_RETENTION)
        return Terms(
            who=f"Replicate, trainer {trainer.name}",
            carries="url",
            notes=tuple(notes),
            hours=known.hours(recipe) if known else None,
            seconds=seconds,
            limited_by="follower" if seconds else None,
            price_per_hour=price,
        )

    def _most_seconds(self, wishes: Wishes, price: float | None) -> int | None:
        hours = [wishes.max_hours or self._settings.max_hours]
        if price and self._settings.max_cost is not None:
            hours.append(self._settings.max_cost / price)
        wished = [most for most in hours if most is not None]
        return max(1, int(min(wished) * 3600)) if wished else None

    def ready(self, recipe: Recipe) -> None:
        """A trainer at Replicate can be asked for nothing but its schema, which is read already."""

    # submitting

    def draft(self, order: Order) -> Draft:
        trainer, parcel = self._trainer, order.parcel
        _check_size(parcel)
        inputs = self._inputs(order, trainer)
        place = self._dialect.destination(order)
        url = parcel.url
        if not url:
            assert parcel.file is not None  # `_check_size`
            url = self._dialect.upload(parcel.file)
        shown = {
            name: value
            for name, value in inputs.items()
            if name != CARRIED and not (name in trainer.schema.properties and trainer.schema.properties[name].secret)
        }
        pictures = pictures_input(trainer.schema) or "input_images"
        path, body = self._dialect.request(order, trainer, place, {**inputs, pictures: url})
        told = {"trainer": trainer.name, "version": trainer.version, "destination": place, "input": shown}
        steps = next((inputs[name] for name in _STEPS if name in inputs), None)
        facts = {"trainer": trainer.name, "version": trainer.version, **origin(self._settings.replicate_url)}
        return Draft(
            place=place,
            contract="dreamctl" if trainer.carries else self._dialect.contract,
            body={"path": path, "json": body},
            digest=digest({**told, "data": parcel.sha256, "run": order.run.record().key}),
            facts={**facts, **({"steps": steps} if steps else {})},
        )

    def _inputs(self, order: Order, trainer: Trainer) -> dict[str, Any]:
        """All inputs but the pictures' URL."""
        run = order.run
        if not trainer.carries:
            captions = _has_captions(order.parcel)
            translation = translated(trainer.schema, run.recipe(), order.wishes.inputs, run.concept(), captions)
            require(translation, trainer.name)
            return dict(translation.inputs)
        errand = Errand(
            op="train", run=run.record(), recipe=run.recipe(), concept=run.concept(), dataset=run.manifest()
        )
        more = assignments(trainer.schema, order.wishes.inputs, _own_inputs(trainer))
        return {**more, CARRIED: json.dumps(errand.plain(), ensure_ascii=False)}

    def submit(self, draft: Draft) -> str:
        return self._api.train(draft.body["path"], draft.body["json"])

    def find(self, run: RunFolder, job: RemoteJob) -> str | None:
        self._check_server(job)
        return found(self._api, self._dialect, run, job)

    def _check_server(self, job: RemoteJob) -> None:
        check_server(job, self._settings.replicate_url, "replicate_url")

    # afterwards

    def report(self, run: RunFolder, job: RemoteJob) -> Report:
        self._check_server(job)
        try:
            training = self._api.training(job.id or "")
        except NotFound:
            if not forgotten(job):
                if job.contract != "dreambooth":  # that API has no such question
                    self._api.account()  # where this cannot be answered nothing is known of the training
                return missing(job, self.title)
            return Report("expired", f"Replicate knows no training {job.id}", "train it again with --again")
        return reported(training, job, self._settings.replicate_url)

    def cancel(self, job: RemoteJob) -> None:
        self._check_server(job)
        if not self._dialect.cancels:
            raise ProviderError(
                "the DreamBooth API ends no training", hint="wait for its end, or end it where the server runs"
            )
        if job.id:
            try:
                self._api.cancel(job.id)
            except NotFound:
                return

    def adopt(self, remote_id: str) -> RemoteJob:
        try:
            training = self._api.training(checked_id(remote_id))
        except NotFound:
            raise NotFound(
                f"Replicate has no training {remote_id}, or not for this token",
                field="--attach",
                hint="https://replicate.com/trainings lists them",
            ) from None
        given = training.get("input")
        given = given if isinstance(given, dict) else {}
        old = self._settings.replicate_dialect == "dreambooth"
        created = written(moment(training.get("created_at"))) or now()
        steps = next((given[name] for name in _STEPS if isinstance(given.get(name), int)), None)
        facts = {"trainer": training.get("model"), "version": training.get("version"), "steps": steps}
        facts |= origin(self._settings.replicate_url)
        place = training.get("model" if old else "destination")
        return RemoteJob(
            backend=self.name,
            place=place if isinstance(place, str) else "",
            contract="dreambooth" if old else "dreamctl" if CARRIED in given else "trainings",
            began=created,
            id=remote_id,
            accepted=created,
            facts={name: value for name, value in facts.items() if isinstance(value, str | int)},
        )

    def examine(self, ask_worker: bool) -> list[Look]:
        """A trainer at Replicate cannot be started for a look, so `ask_worker` asks for nothing more."""
        return looks(self._settings, lambda: self._api, lambda: self._trainer)


_RETENTION = "Replicate deletes what a training made an hour after its end: `dreamctl status` fetches it before that"


def _own_inputs(trainer: Trainer) -> tuple[str, ...]:
    return CARRIED, pictures_input(trainer.schema) or CARRIED


def _unsaid(translation: Translation, trainer: Trainer) -> list[str]:
    notes = ["the trainer's checkpoints and samples do not come back"]
    if translation.unsaid:
        notes.append(f"{trainer.name} decides by itself, whatever the recipe says: {', '.join(translation.unsaid)}")
    return notes


def _check_size(parcel: Parcel) -> None:
    """Raises InvalidInput where the files API would not take the archive."""
    if parcel.url:
        return
    size = parcel.bytes if parcel.file is None else parcel.file.stat().st_size
    if parcel.file is None or size > FILE_LIMIT:
        raise InvalidInput(
            f"the dataset's archive has {bytes_text(size)}, and Replicate takes {bytes_text(FILE_LIMIT)} at most",
            field="storage",
            hint="name a bucket that it can be fetched from: dreamctl config set storage s3://bucket/folder",
        )


def _has_captions(parcel: Parcel) -> bool:
    """Whether captions lie beside the pictures. An archive at a URL that the user named is taken to have them."""
    if parcel.file is None or not Path(parcel.file).is_file():
        return True
    with zipfile.ZipFile(parcel.file) as archive:
        return any(name.endswith(".txt") for name in archive.namelist())


def backend(support: Support) -> Remote:
    """Replicate as a backend."""
    return Remote(Replicate(support), support)
