"""Writing `model/`: the weights as others read them, digested, loaded back and compared before they count."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import ModelFile, Weights, model_digest
from dreamctl.errors import DreamctlError
from dreamctl.families.base import Model, Precision, ResolvedBase, Tensors
from dreamctl.files import replacing_folder, sha256_file, write_json
from dreamctl.generation.pipeline import MODEL_FILE, Pipe, open_pipeline
from dreamctl.runfolder import RunFolder
from dreamctl.training.draws import generator
from dreamctl.training.lessons import EMPTY, Lessons
from dreamctl.training.progress import Reporter

TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-2}
"""How far the reloaded model's answer may be from the trained one's, relative to the answer's size."""


@dataclass(frozen=True)
class ModelOf:
    """What a model is made of, for `model.json`."""

    resolved: ResolvedBase
    recipe: Recipe
    concept: Concept
    final_loss: float


def export(
    run: RunFolder,
    model: Model,
    of: ModelOf,
    probe: Probe,
    known: Tensors | None,
    device: torch.device,
    reporter: Reporter,
) -> Pipe:
    """Write `model/`, wholly or not at all, and give the pipeline that was loaded back from it.

    `known` are the embeddings of the probe's texts where no text encoder is taught; both models get the very same.
    Whole components are halved (fp16), as is usual; where that changes the model's answers too much, they stay fp32.
    Raises DreamctlError when the files do not give back what was trained, or cannot be written.
    """
    expected = answers(model, probe, device, known)
    model.to("cpu")  # two models on the device would need twice the memory that the training needed
    if device.type == "cuda":
        torch.cuda.empty_cache()
    for precision in _precisions(of.recipe):
        with contextlib.suppress(_Differs), replacing_folder(run.model) as folder:
            model.save(folder, of.recipe.method, precision)
            write_json(folder / MODEL_FILE, _described(run, folder, of).plain())
            pipe = open_pipeline(of.resolved, folder, device=device, precision="fp32")
            gap = distance(expected, answers(pipe.model, probe, device, known))
            if not gap <= TOLERANCE[precision]:  # NaN is not within any tolerance
                reporter.note(f"saved as {precision} the model answers {gap:.2%} differently from the trained one")
                raise _Differs
            return pipe
    raise DreamctlError(
        "the saved model, loaded back, does not answer as the trained one did, so it was not kept",
        hint="this is a defect of dreamctl or of a library: please report it with the run's train.log",
    )


class _Differs(Exception):
    """What was loaded back is not what was saved; leaving `replacing_folder` with this keeps nothing."""


def _precisions(recipe: Recipe) -> tuple[Precision, ...]:
    return ("fp32",) if recipe.method.name == "lora" else ("fp16", "fp32")


def _described(run: RunFolder, folder: Path, of: ModelOf) -> ModelFile:
    files = tuple(_weights(folder))
    return ModelFile(
        digest=model_digest(files),
        family=of.resolved.family,
        format="peft" if of.recipe.method.name == "lora" else "diffusers",
        base=_base_name(of.resolved),
        base_digest=of.resolved.digest,
        steps=of.recipe.training.steps,
        final_loss=round(of.final_loss, 6),
        concepts=(of.concept,),
        files=files,
        parent=run.record().parent,
    )


def _base_name(resolved: ResolvedBase) -> str:
    revision = resolved.base.revision
    return f"{resolved.base.source}@{revision}" if revision else resolved.base.source


def _weights(folder: Path) -> list[Weights]:
    return [
        Weights(file=path.relative_to(folder).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


@dataclass(frozen=True)
class Probe:
    """What both models are asked: latents (N, C, h, w) with noise at two moments, and their texts."""

    texts: list[str]
    latents: Tensor
    noise: Tensor
    moments: Tensor


def make_probe(lessons: Lessons, seed: int) -> Probe:
    """A question about the first lesson, with its text and without."""
    latents = lessons.latents[:1].repeat(2, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator(seed, "probe"))
    return Probe([lessons.texts[0], EMPTY], latents, noise, torch.tensor([0.3, 0.8]))


def answers(model: Model, probe: Probe, device: torch.device, known: Tensors | None = None) -> list[Tensor]:
    """The embeddings of the texts (`known`, where their encoder is gone) and the denoiser's prediction, on the CPU."""
    for component in model.components.values():
        component.eval()
    # Unless told not to, GPUs round a convolution's inputs to 10 bits (TF32), which blows up differences of last bits.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.no_grad(), exact:
        tokens = {} if known else model.tokenize(probe.texts)
        embeddings = _on(known, device) if known else model.embed(_on(tokens, device))
        noised = model.noised(probe.latents.to(device), probe.noise.to(device), probe.moments.to(device))
        return [value.float().cpu() for value in (*embeddings.values(), model.predict(noised, embeddings))]


def _on(tensors: Tensors, device: torch.device) -> Tensors:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def distance(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference of two models' answers, relative to the answers' size (NaN if there is a NaN)."""
    return max(
        (float((one - other).norm() / one.norm().clamp(min=1e-12)) for one, other in zip(expected, found, strict=True)),
        key=lambda value: math.inf if math.isnan(value) else value,
    )
