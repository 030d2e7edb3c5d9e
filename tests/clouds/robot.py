"""Plays dreamctl's own worker without training: its answers have the form, the digests and headers of real ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamctl import cargo
from dreamctl.domain.errand import Abilities, Answer, Outcome, Place
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import ModelFile, State, Weights, model_digest
from dreamctl.files import sha256_file, write_json
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.workers import outbox
from tests.clouds.runpod import RunPodCloud

FAMILIES = ("sd15",)


def weights() -> bytes:
    """A whole safetensors file of one small tensor, called as those of adapters are."""
    header = json.dumps({"unet.to_q.lora_A.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(8)


def outcome(errand: Mapping[str, Any], folder: Path, mark: str = "") -> Path:
    """The archive of an outcome, as a trainer with this errand would leave it; another `mark`, another digest."""
    run = RunFolder(folder / errand["run"]["id"])
    run.model.mkdir(parents=True)
    for name in ("run", "concept"):
        write_json(run.path / f"{name}.json", errand[name])
    recipe = Recipe.parse(errand["recipe"], "recipe")
    file = run.model / "pytorch_lora_weights.safetensors"
    file.write_bytes(weights())
    (run.model / "mark.txt").write_text(mark)
    files = [
        Weights(file=path.name, sha256=sha256_file(path), bytes=path.stat().st_size) for path in run.model.iterdir()
    ]
    model = ModelFile(
        digest=model_digest(files), family=recipe.family, format="peft", base=recipe.base.source,
        base_digest=recipe.base.digest or "", steps=recipe.training.steps, final_loss=0.1,
        concepts=(run.concept(),), files=tuple(files),
    )  # fmt: skip
    write_json(run.model / "model.json", model.plain())
    events = EventWriter(run.events_file)
    events.state(State.running)
    for step in range(1, 4):
        events.write("step", step=step, steps=recipe.training.steps, loss=1 / step, seconds=0.1)
    events.state(State.succeeded)
    events.close()
    run.log_file.write_text("trained\n")
    archive = folder / "outcome.zip"
    cargo.pack_outcome(run, archive)
    return archive


def inline_answer(errand: Mapping[str, Any], folder: Path, mark: str = "") -> dict[str, Any]:
    """The answer of a worker without a bucket."""
    data = outcome(errand, folder, mark).read_bytes()
    packed = Outcome(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), data=base64.b64encode(data).decode())
    return Answer(outcome=packed).plain()


def abilities() -> dict[str, Any]:
    return Abilities(
        dreamctl="0", accepts={"errand": 1, "run": 1, "recipe": 1, "dataset": 1}, families=FAMILIES, device="cpu"
    ).plain()


class Robot:
    """Takes jobs in a thread: describes itself, and trains at once unless `hold` is set. `trained`: the runs' ids."""

    def __init__(self, cloud: RunPodCloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.hold = threading.Event()
        self.trained: list[str] = []
        self._ended = False

    def serve(self) -> None:
        while not self._ended:
            with self.cloud.changed:
                job = self.cloud.queued()
                if job is None or (self.hold.is_set() and job.body["input"]["op"] == "train"):
                    self.cloud.changed.wait(0.05)
                    continue
                self.cloud.start(job.id)
            errand = job.body["input"]
            if errand["op"] == "describe":
                self.cloud.finish(job.id, output=abilities())
                continue
            self.cloud.finish(job.id, output=self._trained(job.id, job.body))

    def _trained(self, job_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a training: the outcome in it, or left in the storage for which the request has the keys."""
        errand, place = body["input"], self.folder / job_id
        place.mkdir(parents=True)
        run_id = errand["run"]["id"]
        if not errand.get("storage"):
            self.trained.append(run_id)
            return inline_answer(errand, place)
        storage = outbox.open_storage(Place.parse(errand["storage"], "storage"), body.get("s3Config"))
        holder = outbox.claim(storage, run_id, job_id, place)
        if holder:
            return Answer(claimed_by=holder).plain()
        self.trained.append(run_id)
        return outbox.leave(storage, run_id, outcome(errand, place)).plain()

    def end(self) -> None:
        self._ended = True

    @property
    def submitted(self) -> int:
        """How many trainings were accepted."""
        return sum(body["input"].get("op") == "train" for body in self.cloud.submissions)


@contextlib.contextmanager
def robot(cloud: RunPodCloud, folder: Path) -> Iterator[Robot]:
    """A worker that trains nothing, while the block lasts."""
    worker = Robot(cloud, folder)
    thread = threading.Thread(target=worker.serve, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.end()
        thread.join(10)
