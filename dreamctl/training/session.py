"""One training from a run folder to a model: the phases, in order."""

from __future__ import annotations

import datetime
import shutil
from typing import Any

import torch

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput
from dreamctl.families.base import Family, Model, ResolvedBase, load_family
from dreamctl.families.sources import resolve_base
from dreamctl.generation.pipeline import Pipe, open_pipeline
from dreamctl.runfolder import RunFolder
from dreamctl.training.batches import Batches
from dreamctl.training.checkpoint import sweep
from dreamctl.training.data import Example, read_examples
from dreamctl.training.device import process_count, process_number
from dreamctl.training.export import ModelOf, export, make_probe
from dreamctl.training.lessons import Lessons, Texts, encode_lessons, encode_texts, release_encoders
from dreamctl.training.loop import Loop
from dreamctl.training.prior import class_examples, uses_prior
from dreamctl.training.progress import Reporter
from dreamctl.training.sampling import draw_samples
from dreamctl.training.stop import Stop
from dreamctl.training.student import Student


class Session:
    """Everything that the phases of one training share."""

    def __init__(self, run: RunFolder, reporter: Reporter, stop: Stop) -> None:
        self.run = run
        self.reporter = reporter
        self.stop = stop
        self.recipe: Recipe = run.recipe()
        self.concept: Concept = run.concept()
        self.examples = read_examples(run, self.recipe, self.concept)
        self.resolved: ResolvedBase = resolve_base(self.recipe.base)
        self.family: Family = load_family(self.recipe.family)
        self.accelerator = _accelerator(self.recipe)
        self.device: torch.device = self.accelerator.device
        check(self.recipe, self.family, self.resolved)

    def train(self) -> None:
        """Train, export, draw samples. Raises Stopped when asked to, DreamctlError when it cannot be done."""
        main = self.accelerator.is_main_process
        if main:
            for folder in (self.run.path, self.run.checkpoints, self.run.samples):
                sweep(folder)
        pipe = None if self.run.model_file() else self._teach()
        if main and self.recipe.samples.prompts:
            # without `_teach` this training was killed, or asked to stop, after the model was written
            pipe = pipe or open_pipeline(self.resolved, self.run.model, device=self.device, precision="fp32")
            self._draw(pipe, self.recipe.training.steps)
        if main and not self.recipe.checkpoints.keep_when_done:
            shutil.rmtree(self.run.checkpoints, ignore_errors=True)  # the model is whole: nothing goes on from them
        self.accelerator.wait_for_everyone()

    def _teach(self) -> Pipe | None:
        classes = self._class_examples()
        self.reporter.say(f"processes: {process_count()}, on {self.device}, base {self.recipe.base.source}")
        self.reporter.phase("loading")
        model = self.family.open(self.resolved)
        instances, class_lessons, texts = self._encode(model, classes)
        loop = self._loop(
            model, Batches(self.recipe, instances, class_lessons, texts, process_number(), process_count())
        )
        live = Pipe(model, self.device)
        loop.run(lambda step: self._sample_live(live, step))
        final_loss = loop.finish()
        self.reporter.phase("saving")
        return self._export(model, instances, texts, final_loss)

    def _class_examples(self) -> list[Example]:
        if not uses_prior(self.recipe):
            return []
        examples = class_examples(self.recipe, self.concept, self.resolved, self.device, self.reporter, self.stop)
        self.accelerator.wait_for_everyone()
        return examples

    def _encode(self, model: Model, classes: list[Example]) -> tuple[Lessons, Lessons | None, Texts]:
        """Cache latents and texts, and let go of the encoders that are not needed again."""
        self.reporter.phase("caching", len(self.examples) + len(classes))
        side, method = self.recipe.training.resolution, self.recipe.method
        instances = encode_lessons(model, self.examples, side, self.device, self.stop)
        class_lessons = encode_lessons(model, classes, side, self.device, self.stop) if classes else None
        texts = [example.text for example in (*self.examples, *classes)]
        encoded = encode_texts(model, texts, self.device, method.train_text_encoder)
        release_encoders(model, self.recipe)
        return instances, class_lessons, encoded

    def _loop(self, model: Model, batches: Batches) -> Loop:
        recipe = self.recipe
        model.to(self.device)
        torch.manual_seed(recipe.training.seed)  # fresh adapters begin with random numbers
        model.prepare(recipe.method)
        if recipe.training.gradient_checkpointing:
            model.save_memory(recipe.method)
        student = Student(model, recipe)
        return Loop(self.run, recipe, self.family, student, batches, self.accelerator, self.reporter, self.stop)

    def _export(self, model: Model, instances: Lessons, texts: Texts, final_loss: float) -> Pipe | None:
        """The main process writes the model, and has its pipeline; the others wait."""
        pipe = None
        if self.accelerator.is_main_process:
            probe = make_probe(instances, self.recipe.training.seed)
            known = None if self.recipe.method.train_text_encoder else texts.batch(probe.texts)
            described = ModelOf(self.resolved, self.recipe, self.concept, final_loss)
            pipe = export(self.run, model, described, probe, known, self.device, self.reporter)
        self.accelerator.wait_for_everyone()
        return pipe

    def _sample_live(self, pipe: Pipe, step: int) -> None:
        """Samples from the weights as they are now; only the main process draws, the others go on to the next step."""
        if self.accelerator.is_main_process and self.recipe.samples.prompts:
            for component in pipe.model.components.values():
                component.eval()
            with self.accelerator.autocast():
                self._draw(pipe, step)

    def _draw(self, pipe: Pipe, step: int) -> None:
        self.reporter.phase("samples", len(self.recipe.samples.prompts))
        draw_samples(self.run, self.recipe, self.concept, pipe, step, self.reporter, self.stop)


def _accelerator(recipe: Recipe) -> Any:
    from accelerate import Accelerator, InitProcessGroupKwargs

    mixed = {"fp32": "no"}.get(recipe.training.precision, recipe.training.precision)
    if mixed == "fp16" and not torch.cuda.is_available():
        raise InvalidInput(
            "precision fp16 needs a CUDA device",
            field="training.precision",
            hint="--set training.precision=fp32, or bf16",
        )
    # the other processes wait while the main one waits for a device, or draws class pictures
    patience = InitProcessGroupKwargs(timeout=datetime.timedelta(days=7))
    return Accelerator(mixed_precision=mixed, kwargs_handlers=[patience])


def check(recipe: Recipe, family: Family, resolved: ResolvedBase) -> None:
    """Refuse what cannot be trained, before anything expensive. Raises InvalidInput."""
    if resolved.family != recipe.family:
        raise InvalidInput(
            f"{recipe.base.source} is a model of family {resolved.family}, and the recipe is for {recipe.family}",
            field="family",
            hint=f"--set family={resolved.family}, or another --base-model",
        )
    if recipe.method.name not in family.methods:
        raise InvalidInput(f"method {recipe.method.name} is not available for {family.title}", field="method.name")
    if recipe.training.batch_size % process_count():
        raise InvalidInput(
            f"training.batch_size = {recipe.training.batch_size} cannot be shared by {process_count()} processes",
            field="training.batch_size",
            hint=f"choose a multiple of {process_count()}",
        )
    if recipe.training.resolution % family.reduction:
        raise InvalidInput(
            f"training.resolution = {recipe.training.resolution} is not a multiple of {family.reduction}",
            field="training.resolution",
        )
