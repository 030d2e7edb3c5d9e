"""Replicate's HTTP API on loopback: what its clients are served, and a trainer that a test plays, or that Cog runs.

A test plays the trainer (`start`, `log`, `finish`, `fail`, `abort`), or lets a real one work (`cog`, `run_on`); it
breaks what it likes (`fault`, `lose_answer`, `throttle`), and counts what was accepted (`submissions`).

    with replicate_cloud() as cloud:
        ...             # settings: replicate_url = cloud.url; REPLICATE_API_TOKEN = cloud.token; models: cloud.models
        cloud.finish(cloud.newest, weights=tar)
    with replicate_cloud() as cloud, cog(clouds_python, folder) as server:
        cloud.run_on(server, "tester/dreamctl-trainer")

The routes, for `fault`: account hardware models model versions version submit trainings training cancel files file
upload (a POST to files) content secret output, and of the DreamBooth API old-submit old-upload old-put.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds import replicate_api
from tests.clouds.replicate_cog import AUTH, Cog, call, cog
from tests.clouds.replicate_trainers import TRAINERS, Schema
from tests.clouds.replicate_wire import Blob, Door, Fault

__all__ = ["Cog", "ReplicateCloud", "Training", "cog", "replicate_cloud", "signature"]

_WELL_AT_WORK = 0.2
FINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
HARDWARE = (
    ("cpu", "CPU"), ("gpu-t4", "Nvidia T4 GPU"), ("gpu-l40s", "Nvidia L40S GPU"),
    ("gpu-a100-large", "Nvidia A100 (80GB) GPU"), ("gpu-h100", "Nvidia H100 GPU"),
)  # fmt: skip


@dataclass
class Model:
    """A model; `schemas`: those of each version's inputs, the newest version last. `official`: it shows none itself."""

    owner: str
    name: str
    visibility: str = "public"
    hardware: str = "gpu-h100"
    schemas: dict[str, Schema] = field(default_factory=dict)
    official: bool = False


@dataclass
class Training:
    """A training; `old`: what the DreamBooth API was asked beside the input. Times: seconds since 1970."""

    id: str
    model: str
    version: str
    destination: str
    input: dict[str, Any]
    created: float
    webhook: str | None = None
    events: tuple[str, ...] = ("start", "output", "logs", "completed")
    old: dict[str, Any] | None = None
    status: str = "starting"
    output: Any = None
    logs: str = ""
    error: str | None = None
    started: float | None = None
    completed: float | None = None
    data_removed: bool = False


class ReplicateCloud:
    """One account. Its attributes may be changed by a test at any time."""

    def __init__(self) -> None:
        self.token = f"r8_{secrets.token_hex(18)}a"
        self.account = "tester"
        self.hardware = [{"sku": sku, "name": name} for sku, name in HARDWARE]
        self.webhook_secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        self.webhook_pause = 0.1  # seconds before the second try; each next pause is twice as long
        self.page = 100  # trainings in a page of the list
        self.file_limit = 100_000_000
        self.outputs_need_token = True
        self.heeds_if_range = True
        self.ahead = 0.0  # seconds that Replicate's clock is ahead of ours
        self.destination_shown = True
        self.models: dict[str, Model] = {}
        self.trainings: dict[str, Training] = {}
        self.files: dict[str, dict[str, Any]] = {}  # as `GET /files/{id}` tells them
        self.blobs: dict[str, Blob] = {}  # by path: what was uploaded, and what was made
        self.submissions: list[dict[str, Any]] = []  # bodies of accepted requests; each is a training, and billed
        self.requests: list[str] = []  # "POST submit"; what was refused is among them
        self.webhooks: list[tuple[str, dict[str, str], bytes, int]] = []  # each try: URL, headers, body, answer or 0
        self.before: dict[str, Callable[[], None]] = {}  # by route
        self.on_submit: Callable[[Training], None] | None = None  # a trainer that works at once
        self.changed = threading.Condition(threading.RLock())
        self._cogs: dict[str, Cog] = {}
        self._faults: dict[str, list[Fault]] = {}
        self._door = Door(replicate_api.answering(self), self.now)
        self._door.__enter__()
        for name, schema in TRAINERS.items():
            self.add_trainer(name, schema)

    @property
    def origin(self) -> str:
        """The value of `REPLICATE_BASE_URL` for Replicate's client."""
        return self._door.origin

    @property
    def url(self) -> str:
        """As in the setting `replicate_url`."""
        return f"{self.origin}/v1"

    @property
    def newest(self) -> str:
        """The id of the training that was submitted last."""
        return list(self.trainings)[-1]

    def now(self) -> float:
        return time.time() + self.ahead

    def close(self) -> None:
        self._door.__exit__()

    # models

    def add_model(self, name: str, **more: Any) -> Model:
        """A model of that `owner/name`, such as a destination; `more`: see `Model`."""
        owner, _, short = name.partition("/")
        self.models[name] = Model(owner, short, **more)
        return self.models[name]

    def add_trainer(self, name: str, schema: Schema) -> str:
        """A new version of a trainer (which is made where it is not there yet); returns the version's id."""
        model = self.models.get(name) or self.add_model(name)
        version = hashlib.sha256(f"{name}{len(model.schemas)}".encode()).hexdigest()
        model.schemas[version] = schema
        return version

    def run_on(self, server: Cog, name: str) -> str:
        """Trainings of this trainer run on a Cog server from now on; returns the id of its version."""
        self._cogs[name] = server
        return self.add_trainer(name, server.schema["components"]["schemas"])

    # what a test breaks

    def fault(self, route: str, status: int | None, times: int = 1, **more: Any) -> None:
        """Break the next `times` requests of a route; see `Fault`. Several follow each other."""
        with self.changed:
            self._faults.setdefault(route, []).append(Fault(status, times, **more))

    def lose_answer(self, route: str = "submit") -> None:
        """Carry out the next request, and close the connection without an answer."""
        self.fault(route, 0, handled=True)

    def throttle(self, route: str, seconds: int = 0, times: int = 1) -> None:
        """429 in Replicate's words, which are all that says how long to wait."""
        said = {"detail": f"Request was throttled. Your rate limit resets in ~{seconds}s.", "status": 429}
        self.fault(route, 429, times, body=said, headers={"ratelimit-remaining": "0", "ratelimit-reset": str(seconds)})

    def next_fault(self, route: str) -> Fault:
        """The fault of the request that has just come, used up by this; one that breaks nothing where none waits."""
        with self.changed:
            waiting = self._faults.get(route, [])
            if not waiting:
                return Fault(None)
            waiting[0].times -= 1
            return waiting[0] if waiting[0].times > 0 else waiting.pop(0)

    def forget(self, training_id: str) -> None:
        """The training answers 404."""
        with self.changed:
            del self.trainings[training_id]

    def remove_data(self, training_id: str) -> None:
        """What Replicate does an hour after the end: input, output and logs are gone, the training stays."""
        with self.changed:
            training = self.trainings[training_id]
            training.input, training.output, training.logs, training.data_removed = {}, None, "", True

    def change_output(self, training_id: str, data: bytes) -> None:
        """Other bytes under the same URL, and so another ETag."""
        self.blobs[self.output_path(training_id)].data = data

    def output_path(self, training_id: str) -> str:
        """The path of what a training made, below the origin."""
        return next(path for path in self.blobs if path.startswith(f"/delivery/{training_id}/"))

    def duplicate(self, training_id: str) -> Training:
        """The same training once more, as if it had been submitted twice (it is not among `submissions`)."""
        one = self.trainings[training_id]
        more = {"webhook": one.webhook, "events": one.events, "old": one.old}
        return self.accept(one.model, one.version, one.destination, dict(one.input), **more)

    # the trainer's part

    def accept(self, model: str, version: str, destination: str, given: dict[str, Any], **more: Any) -> Training:
        """A new training, which waits for its trainer."""
        training = Training(secrets.token_hex(13), model, version, destination, given, self.now(), **more)
        with self.changed:
            self.trainings[training.id] = training
            self.changed.notify_all()
        if self.on_submit:
            self.on_submit(training)
        if model in self._cogs:
            threading.Thread(target=self._run, args=(self._cogs[model], training), daemon=True).start()
        return training

    def start(self, training_id: str) -> None:
        self._update(training_id, "start", status="processing")

    def log(self, training_id: str, text: str) -> None:
        """The trainer prints `text`, line ends included."""
        self._update(training_id, "logs", status="processing", logs=self.trainings[training_id].logs + text)

    def finish(
        self, training_id: str, weights: bytes = b"", name: str = "trained_model.tar", output: Any = ...
    ) -> None:
        """The training succeeded. `output`, where given, is told as it is, instead of the weights' URL."""
        path = f"/delivery/{training_id}/{name}"
        self.blobs[path] = Blob(weights)
        training = self.trainings[training_id]
        version = f"{training.destination}:{hashlib.sha256(training_id.encode()).hexdigest()}"
        made = {"version": version, "weights": self.origin + path} if output is ... else output
        self._update(training_id, "completed", status="succeeded", output=made)

    def fail(self, training_id: str, error: str = "it broke") -> None:
        self._update(training_id, "completed", status="failed", error=error)

    def abort(self, training_id: str) -> None:
        """The deadline passed before the training began."""
        self._update(training_id, "completed", status="aborted")

    def cancel(self, training_id: str) -> None:
        training = self.trainings[training_id]
        if training.model in self._cogs and training.status not in FINAL:
            # coglet 0.23.1 hangs for ever when it is cancelled in the first milliseconds of a training
            with self.changed:
                self.changed.wait_for(lambda: training.started or training.status in FINAL, 5)
            time.sleep(_WELL_AT_WORK)
            with contextlib.suppress(urllib.error.HTTPError):  # it may just have ended
                call(f"{self._cogs[training.model].url}/trainings/{training_id}/cancel", {})
        self._update(training_id, "completed", status="canceled")

    def wait_for(self, training_id: str, *states: str, seconds: float = 60.0) -> Training:
        """The training once it is in one of `states` (in any final one). Raises TimeoutError."""
        wanted = frozenset(states) or FINAL
        with self.changed:
            if not self.changed.wait_for(lambda: self.trainings[training_id].status in wanted, seconds):
                raise TimeoutError(f"{self.trainings[training_id]} after {seconds:.0f} s")
            return self.trainings[training_id]

    def shown(self, training: Training, posted: bool = False) -> dict[str, Any]:
        """As the API tells it."""
        return replicate_api.shown(self, training, posted)

    def _update(self, training_id: str, event: str, **changes: Any) -> None:
        with self.changed:
            training = self.trainings[training_id]
            if training.status in FINAL:
                return
            for name, value in changes.items():
                setattr(training, name, value)
            if training.status != "starting" and training.status != "aborted":
                training.started = training.started or self.now()
            if training.status in FINAL:
                training.completed = self.now()
            self.changed.notify_all()
            if training.webhook and event in training.events:
                body = json.dumps(self.shown(training)).encode()
                tries = 3 if event == "completed" else 1
                threading.Thread(target=self._tell, args=(training.webhook, body, tries), daemon=True).start()

    # a trainer that Cog runs

    def _run(self, server: Cog, training: Training) -> None:
        given = {name: self._readable(value) for name, value in training.input.items()}
        hook = {"webhook": f"{self.origin}/cog/{training.id}", "webhook_events_filter": ["start", "logs", "completed"]}
        order = {"id": training.id, "input": given, **hook}
        while training.status not in FINAL:
            try:
                call(f"{server.url}/trainings", order, {"Prefer": "respond-async"})
                return
            except OSError as error:
                if getattr(error, "code", 0) != 409:  # it is busy: the training waits in the queue
                    self.fail(training.id, f"cog: {error}")
            time.sleep(0.02)

    def _readable(self, value: Any) -> Any:
        """A file of the files API, which wants the token, as a URL that a trainer can read."""
        if isinstance(value, str) and value.startswith(f"{self.url}/files/"):
            return f"{self.origin}{replicate_api.signed_content(self, value.rpartition('/')[2])}"
        return value

    def told_by_cog(self, training_id: str, told: Mapping[str, Any], authorization: str) -> None:
        """What Cog's webhook says."""
        if authorization != f"Bearer {AUTH}" or training_id not in self.trainings:
            return
        status, logs = told["status"], told.get("logs") or ""
        if status == "succeeded":
            self._update(training_id, "logs", logs=logs)
            weights = told["output"]["weights"]
            self.finish(training_id, base64.b64decode(weights.partition(",")[2]))
        else:
            event = "completed" if status in FINAL else "logs"
            self._update(training_id, event, status=status, logs=logs, error=told.get("error"))

    # webhooks

    def _tell(self, url: str, body: bytes, tries: int) -> None:
        headers = signature(self.webhook_secret, f"msg_{secrets.token_hex(10)}", int(self.now()), body)
        for attempt in range(tries):
            time.sleep(self.webhook_pause * 2 ** (attempt - 1) if attempt else 0)
            if 200 <= self.deliver(url, headers, body) < 300:
                return

    def deliver(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """POST a webhook once, such as one of `webhooks` again; returns what was answered, 0 where nothing was."""
        request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = int(answer.status)
        except OSError as error:
            status = int(getattr(error, "code", 0))
        with self.changed:
            self.webhooks.append((url, dict(headers), body, status))
            self.changed.notify_all()
        return status


def signature(secret: str, message: str, moment: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook by Standard Webhooks, beside a signature of a version that nobody knows."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = base64.b64encode(hmac.new(key, f"{message}.{moment}.".encode() + body, "sha256").digest()).decode()
    return {"webhook-id": message, "webhook-timestamp": str(moment), "webhook-signature": f"v9,bm9uZQ== v1,{signed}"}


def moment(seconds: float | None, digits: int = 6) -> str | None:
    """A time as Replicate writes it: UTC, with six to nine digits of a second."""
    if seconds is None:
        return None
    text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text:0<{20 + digits}}Z"


@contextlib.contextmanager
def replicate_cloud() -> Iterator[ReplicateCloud]:
    """The cloud while the block lasts."""
    cloud = ReplicateCloud()
    try:
        yield cloud
    finally:
        cloud.close()
