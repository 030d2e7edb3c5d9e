"""What is saved is loaded back and compared before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Method
from dreamctl.errors import DreamctlError
from dreamctl.families.base import Precision, load_family
from dreamctl.families.sd15 import SD15Model
from dreamctl.families.sources import resolve_base
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.training.export import ModelOf, export, make_probe
from dreamctl.training.lessons import Lessons
from dreamctl.training.progress import Reporter
from tests.training.school import FULL, make_run, messages, weights

PERSON = Concept(identifier="sks", category="person")


class Forgetful(SD15Model):
    """Saves something else than it is."""

    def save(self, folder: Path, method: Method, precision: Precision) -> None:
        super().save(folder, method, precision)
        other = load_family("sd15").open(resolve_base(self.base))
        other.save(folder, method, precision)

    base: Any


def exported(run: RunFolder, scale: Mapping[str, float], forgetful: bool = False) -> None:
    """Export the base with all weights of the UNet's named parts scaled, as if that had been learnt."""
    recipe = run.recipe()
    resolved = resolve_base(recipe.base)
    model = load_family("sd15").open(resolved)
    with torch.no_grad():
        for name, parameter in model.denoiser.named_parameters():
            parameter.mul_(next((factor for part, factor in scale.items() if part in name), 1.0))
    if forgetful:
        model.__class__ = Forgetful
        model.base = recipe.base  # type: ignore[attr-defined]
    lessons = Lessons(["0.png"], ["a photo of sks person"], torch.randn(1, 4, 8, 8), torch.ones(1, 1, 8, 8))
    reporter = Reporter(EventWriter(run.events_file))
    of = ModelOf(resolved, recipe, PERSON, 0.5)
    export(run, model, of, make_probe(lessons, 0), None, torch.device("cpu"), reporter)


def test_a_model_that_is_not_what_was_trained_is_not_kept(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL)
    with pytest.raises(DreamctlError, match="does not answer as the trained one did"):
        exported(run, {"": 1.5}, forgetful=True)
    assert not run.model.exists()
    assert not list(run.path.glob(".model*"))


def test_halves_are_usual(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL)
    exported(run, {"conv": 1.5})
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float16}
    assert messages(run) == []


def test_weights_too_large_for_halves_stay_whole(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL)
    exported(run, {"time_embedding.linear_1": 1e6, "time_embedding.linear_2": 1e-6})
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}
    assert "saved as fp16" in messages(run)[0]
