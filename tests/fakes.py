"""Real things made small, and parts that stand behind the same doors as the real ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from dreamctl.backends.base import Support
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset, Picture, Pictures
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import ModelFile, RunRecord, State, Target, Weights, model_digest
from dreamctl.files import locked, sha256_file, write_json
from dreamctl.reporter import Unit
from dreamctl.runfolder import EventWriter, RunFolder, create_run, new_run_id, now

CONCEPT = Concept(identifier="sks", category="person")


def write_pictures(folder: Path, count: int = 5, size: int = 80) -> Path:
    """`count` different pictures as a user may have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (size, size + 8 * number), (40 * number % 256, 80, 160)).save(folder / f"photo {number}.png")
    return folder


def write_dataset(
    folder: Path, count: int = 5, size: int = 64, trigger: str | None = None, colours: int = 0
) -> DatasetFolder:
    """A prepared dataset of plain-coloured pictures with captions; other `colours`, other pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(count):
        file = folder / f"{number:02}.jpg"
        Image.new("RGB", (size, size), (50 * number % 256, 90 + 20 * colours, 160)).save(file, quality=95)
        digest = sha256_file(file)
        pictures.append(
            Picture(
                file=file.name, sha256=digest, width=size, height=size, source=f"{number}.png",
                source_sha256=hashlib.sha256(file.name.encode()).hexdigest(),
            )
        )  # fmt: skip
    dataset = DatasetFolder(folder)
    dataset.write_manifest(Dataset(size=size, pictures=Pictures.of(pictures), trigger=trigger))
    for number, picture in enumerate(pictures):
        dataset.write_caption(picture.file, f"on a beach {number}")
    return dataset


def write_run(
    runs: Path, dataset: DatasetFolder, recipe: Recipe, concept: Concept = CONCEPT, key: str = "k"
) -> RunFolder:
    """A run folder as `train` makes it."""
    record = RunRecord(
        id=new_run_id(),
        project="project",
        target=Target.private,
        backend="instant",
        key=key,
        pictures="p",
        created=now(),
    )
    return create_run(runs, record, recipe, concept, dataset)


def finish(run: RunFolder, loss: float = 0.1) -> None:
    """Play a trainer that succeeds: events, and a model of one small file."""
    recipe = run.recipe()
    with locked(run.lock_file, f"run {run.id}"):
        events = EventWriter(run.events_file)
        events.state(State.running)
        events.write("step", step=recipe.training.steps, steps=recipe.training.steps, loss=loss, seconds=0.1)
        run.model.mkdir(exist_ok=True)
        file = run.model / "weights.safetensors"
        file.write_bytes(run.id.encode())
        weights = Weights(file=file.name, sha256=sha256_file(file), bytes=file.stat().st_size)
        model = ModelFile(
            digest=model_digest([weights]), family="sd15", format="peft", base=recipe.base.source,
            base_digest=recipe.base.digest or "b", steps=recipe.training.steps, final_loss=loss,
            concepts=(run.concept(),), files=(weights,),
        )  # fmt: skip
        write_json(run.model / "model.json", model.plain())
        events.state(State.succeeded)
        events.close()


class InstantBackend:
    """A backend whose trainings succeed at once; see `dreamctl.backends.base.Backend`."""

    name = "instant"
    remote = False

    def __init__(self, support: Support) -> None:
        self.submitted: list[str] = []

    def check(self, recipe: Recipe) -> list[str]:
        return []

    def submit(self, run: RunFolder) -> str:
        self.submitted.append(run.id)
        finish(run)
        return "instant-1"

    def poll(self, run: RunFolder) -> bool:
        return False

    def pause(self, run: RunFolder) -> float:
        return 0.01

    def fetch(self, run: RunFolder) -> None:
        return None

    def interrupt(self, run: RunFolder) -> bool:
        return False

    def cancel(self, run: RunFolder) -> None:
        events = EventWriter(run.events_file)
        events.state(State.cancelled)
        events.close()


class Recorder:
    """A reporter that remembers; `answers` are given to questions in turn, None when they are used up."""

    def __init__(self, *answers: str) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.questions: list[str] = []
        self._answers = list(answers)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, label: str, done: int, total: int, detail: str = "", unit: Unit = "") -> None: ...

    def confirm(self, question: str) -> bool | None:
        answer = self.ask(question)
        return None if answer is None else answer == "yes"

    def ask(self, question: str) -> str | None:
        self.questions.append(question)
        return self._answers.pop(0) if self._answers else None
