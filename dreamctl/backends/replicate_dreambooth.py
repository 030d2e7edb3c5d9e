"""Replicate's experimental DreamBooth API of 2022, for a server that still speaks it (`replicate_dialect`).

Replicate's own server is gone. What it was asked, and what says the same in today's API (dialect `trainings`):

    POST /v1/trainings                    POST /v1/models/OWNER/NAME/versions/VERSION/trainings
    trainer_version                       VERSION, of the trainer OWNER/NAME
    model                                 destination
    input                                 input, by the names of that trainer's schema
    webhook_completed                     webhook, with webhook_events_filter ["completed"]
    template_version                      nothing: a model's image is built from what its trainer's Cog project says
    notes                                 nothing; here the run's id stands there, and finds a lost submission again
    POST /v1/upload/data.zip, then PUT    POST /v1/files
    GET /v1/trainings/ID                  the same, with other fields
    (nothing)                             POST /v1/trainings/ID/cancel

The token is sent as `Bearer`, which Replicate takes like the `Token` of those days.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl import http
from dreamctl.backends.base import OwnBase, Support
from dreamctl.backends.provider import Order
from dreamctl.backends.replicate_api import Api, Training
from dreamctl.backends.replicate_schema import Property, Schema
from dreamctl.backends.replicate_trainers import Trainer
from dreamctl.backends.replicate_trainings import Match
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import InvalidInput, ProviderError
from dreamctl.runfolder import RunFolder

OWN_BASE = OwnBase("sd15-dreambooth", "", "sd15")
"""Its trainers teach all weights of a Stable Diffusion 1.x of their own."""
_UPLOAD_SECONDS = 300.0
_MAPPING = (
    "today's API says the same with trainer_version in its URL, model as destination, and webhook_completed as "
    'webhook; it has nothing for template_version and notes (replicate_dialect = "trainings" speaks it)'
)


def _inputs(**defaults: Any) -> dict[str, Property]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {name: Property(name, kinds[type(value)], default=value) for name, value in defaults.items()}


SCHEMA = Schema(
    {
        **_inputs(instance_prompt="", class_prompt="", num_class_images=50, max_train_steps=2000, learning_rate=1e-6),
        **_inputs(resolution=512, with_prior_preservation=True, prior_loss_weight=1.0, train_text_encoder=True),
        **_inputs(train_batch_size=1, gradient_accumulation_steps=1, lr_warmup_steps=0, use_8bit_adam=False),
        **_inputs(adam_beta1=0.9, adam_beta2=0.999, adam_weight_decay=1e-2, adam_epsilon=1e-8, max_grad_norm=1.0),
        **_inputs(seed=1337, pad_tokens=False, center_crop=False, n_save_sample=4, save_guidance_scale=7.5),
        **_inputs(save_infer_steps=50, save_sample_prompt="", save_sample_negative_prompt=""),
        "lr_scheduler": Property("lr_scheduler", choices=("constant", "linear", "cosine"), default="constant"),
        "instance_data": Property("instance_data", file=True),
        "class_data": Property("class_data", file=True),
    },
    required=frozenset({"instance_prompt", "class_prompt", "instance_data"}),
    closed=False,
)
"""The inputs of Replicate's trainers of those days; another may have more, which are sent as they are given."""


class DreamBooth:
    """See `dreamctl.backends.replicate_trainings.Dialect`."""

    contract = "dreambooth"
    cancels = False

    def __init__(self, support: Support, api: Api) -> None:
        self._settings, self._api = support.settings, api

    def trainer(self) -> Trainer:
        name, _, version = (self._settings.replicate_trainer or "").partition(":")
        if not version:
            raise InvalidInput(
                f"replicate_trainer = {name}: the DreamBooth API wants a version of the trainer",
                field="replicate_trainer",
                hint="name it as OWNER/NAME:VERSION",
            )
        return Trainer(name, version, SCHEMA)

    def destination(self, order: Order) -> str:
        name = self._settings.replicate_destination
        if not name:
            raise InvalidInput(
                "the DreamBooth API wants the name of the model that it builds",
                field="replicate_destination",
                hint="dreamctl config set replicate_destination OWNER/NAME",
            )
        return name

    def upload(self, file: Path) -> str:
        """Ask for a place, and put the archive there."""
        answer = http.request(
            "POST", f"{self._api.url}/upload/data.zip", token=self._api.token, repeatable=True, timeout=60
        )
        try:
            target, place = str(answer.json()["upload_url"]), str(answer.json()["serving_url"])
        except (ValueError, KeyError, TypeError):
            raise ProviderError("the DreamBooth API named no place for the archive") from None
        _put(target, file)
        return place

    def request(self, order: Order, trainer: Trainer, place: str, inputs: Mapping[str, Any]) -> tuple[str, Any]:
        webhook = order.wishes.webhook or self._settings.webhook
        optional = {"template_version": self._settings.replicate_template, "webhook_completed": webhook}
        body: dict[str, Any] = {"input": dict(inputs), "trainer_version": trainer.version, "model": place}
        return "/trainings", {
            **body,
            "notes": order.run.id,
            **{name: value for name, value in optional.items() if value},
        }

    def match(self, training: Training, run: RunFolder, job: RemoteJob) -> Match:
        if isinstance(training.get("notes"), str):
            return "yes" if training["notes"] == run.id else "no"
        return "maybe" if training.get("model") == job.place else "no"

    def notes(self, trainer: Trainer) -> list[str]:
        return [
            f"this is Replicate's DreamBooth API of 2022: {_MAPPING}",
            "it can neither be told how long a training may take nor end one",
        ]


def _put(url: str, file: Path) -> None:
    """Send a file to the place that the server named."""
    import httpx

    http.remember_secret(url)
    if not http.may_carry_token(url):
        raise ProviderError("the DreamBooth API named a place for the archive that is not https")
    host = httpx.URL(url).host
    headers = {"Content-Type": "application/zip", "Content-Length": str(file.stat().st_size)}
    try:
        with open(file, "rb") as opened, httpx.Client(timeout=_UPLOAD_SECONDS, follow_redirects=False) as client:
            answer = client.put(url, content=opened, headers=headers)
    except httpx.HTTPError as error:
        reason = http.printable(str(error)) or type(error).__name__
        raise ProviderError(f"{host} did not take the archive: {reason}", hint="try again") from None
    if not answer.is_success:
        raise ProviderError(f"{host} did not take the archive: it answered {answer.status_code}", hint="try again")
