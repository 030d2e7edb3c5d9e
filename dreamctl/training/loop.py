"""The loop: for every step its batches, a loss, a finite gradient, an optimizer step, and perhaps a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import State
from dreamctl.errors import DreamctlError
from dreamctl.families.base import Family
from dreamctl.runfolder import RunFolder
from dreamctl.training.batches import Batches
from dreamctl.training.checkpoint import (
    Damaged,
    Progress,
    checkpoints_in,
    restore_checkpoint,
    save_checkpoint,
    tidy_checkpoints,
)
from dreamctl.training.draws import derived
from dreamctl.training.progress import Reporter
from dreamctl.training.schedule import make_optimizer, rate_factor, set_rates
from dreamctl.training.stop import Stop, Stopped
from dreamctl.training.student import Student

RECENT = 50  # losses that make the final loss
MOST_SKIPPED = 50  # steps in a row; the scale halves at each, from 65536


class Loop:
    """One training of a student, from its newest good checkpoint to the last step."""

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        family: Family,
        student: Student,
        batches: Batches,
        accelerator: Any,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        self._run = run
        self._recipe = recipe
        self._batches = batches
        self._accelerator = accelerator
        self._reporter = reporter
        self._stop = stop
        self._saved = 0
        self._skipped = 0
        self._weights = student.named_weights()
        self._optimizer = make_optimizer(student, family, recipe)
        self.progress, scaler = self._restore()
        self._student, self._stepper = accelerator.prepare(student, self._optimizer)
        if scaler and accelerator.scaler:
            accelerator.scaler.load_state_dict(scaler)

    def _restore(self) -> tuple[Progress, dict[str, Any] | None]:
        """The newest checkpoint that is whole; one that is not is passed over with a note."""
        for path in checkpoints_in(self._run.checkpoints):
            try:
                progress, scaler = restore_checkpoint(path, self._weights, self._optimizer)
            except Damaged as reason:
                self._reporter.note(f"checkpoint {path.name} is passed over: {reason}")
                continue
            self._saved = progress.step
            self._reporter.note(f"going on from checkpoint {path.name}")
            return progress, scaler
        return Progress(), None

    def run(self, sample: Callable[[int], None]) -> None:
        """Train to the end; `sample` is called every `samples.every` steps. Raises Stopped (saved), DreamctlError."""
        steps, every = self._recipe.training.steps, self._recipe.checkpoints.every
        samples_every = self._recipe.samples.every
        self._reporter.phase("training", steps)
        self._reporter.clock()
        self._student.train()
        while self.progress.step < steps:
            wish = self._agreed_wish()
            if wish:
                self._save()
                raise Stopped(wish, together=True)
            loss = self._step(self.progress.step)
            self.progress.step += 1
            self.progress.losses = [*self.progress.losses[1 - RECENT :], loss]
            self._reporter.step(self.progress.step, steps, loss)
            if self.progress.step % every == 0 or self.progress.step == steps:  # the last: saving the model may fail
                self._save()
            if samples_every and self.progress.step % samples_every == 0 and self.progress.step < steps:
                self._sample(sample)

    def _sample(self, sample: Callable[[int], None]) -> None:
        self._reporter.flush()
        with suppress(Stopped):  # the wish stays: at the next step all processes save and stop together
            sample(self.progress.step)
        self._student.train()
        self._reporter.clock()

    def _step(self, step: int) -> float:
        """One optimizer step; the mean loss over its forward passes and processes."""
        parts = self._recipe.training.accumulation
        set_rates(self._optimizer, rate_factor(self._recipe.optimizer, step, self._recipe.training.steps))
        total = torch.zeros((), device=self._accelerator.device)
        for part in range(parts):
            last = part == parts - 1
            # only LoRA's dropout uses the global generator; a resumed training must drop the same
            torch.manual_seed(
                derived(self._recipe.training.seed, "dropout", step, part, self._accelerator.process_index)
            )
            with nullcontext() if last else self._accelerator.no_sync(self._student):
                loss = self._loss(step, part) / parts
                self._accelerator.backward(loss)
            total += loss.detach()
        mean = float(self._accelerator.reduce(total, "mean")) if self._accelerator.num_processes > 1 else float(total)
        self._check(mean, step, "loss")
        norm = self._accelerator.clip_grad_norm_(list(self._weights.values()), self._recipe.optimizer.max_grad_norm)
        if self._accelerator.scaler is None:  # with one, fp16 gradients may overflow, and it skips the step
            self._check(float(norm), step, "gradient")
        self._stepper.step()
        self._check_skipped(step)
        self._stepper.zero_grad(set_to_none=True)
        return mean

    def _check_skipped(self, step: int) -> None:
        """fp16 skips a step now and then until its scale fits; when it skips all, nothing is taught."""
        self._skipped = self._skipped + 1 if self._stepper.step_was_skipped else 0
        if self._skipped >= MOST_SKIPPED:
            raise DreamctlError(
                f"the gradients of {self._skipped} steps in a row up to step {step + 1} are too large for fp16",
                hint="--set training.precision=bf16, or fp32, or lower optimizer.learning_rate",
            )

    def _loss(self, step: int, part: int) -> Tensor:
        batch = self._batches.batch(step, part)
        losses: Tensor = self._student(**batch.on(self._accelerator.device))
        loss = losses[: batch.instances].mean()
        if len(losses) > batch.instances:
            loss = loss + self._recipe.prior.weight * losses[batch.instances :].mean()
        return loss

    def _check(self, value: float, step: int, what: str) -> None:
        if not math.isfinite(value):
            raise DreamctlError(
                f"the {what} of step {step + 1} is {value}; the pictures of that step: "
                + ", ".join(self._batches.pictures(step)),
                hint="look at these pictures; if they are fine, lower optimizer.learning_rate or use precision fp32",
            )

    def _agreed_wish(self) -> State | None:
        """What any process was asked, so that all stop at the same step."""
        wish = self._stop.wish()
        if self._accelerator.num_processes == 1:
            return wish
        mine = torch.tensor([wish is State.interrupted, wish is State.cancelled], device=self._accelerator.device)
        interrupted, cancelled = self._accelerator.reduce(mine.float(), "sum").tolist()
        return State.cancelled if cancelled else State.interrupted if interrupted else None

    def _save(self) -> None:
        """Write a checkpoint of this step, unless it has one."""
        if self.progress.step > self._saved:
            self._saved = self.progress.step
            self._reporter.flush()
            if self._accelerator.is_main_process:
                scaler = self._accelerator.scaler
                path = save_checkpoint(
                    self._run.checkpoints,
                    self.progress,
                    self._weights,
                    self._optimizer,
                    scaler.state_dict() if scaler else None,
                )
                tidy_checkpoints(self._run.checkpoints, self._recipe.checkpoints.keep)
                self._reporter.checkpoint(self.progress.step, path)
            self._accelerator.wait_for_everyone()
            self._reporter.clock()

    def finish(self) -> float:
        """Let go of optimizer and gradients; the mean of the last losses."""
        self._optimizer.state.clear()
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.free_memory()
        losses = self.progress.losses
        return sum(losses) / len(losses) if losses else math.nan
