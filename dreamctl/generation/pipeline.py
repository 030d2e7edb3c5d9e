"""A model opened for making pictures: the base, and what was taught laid over it after its files were checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Must be set before torch is loaded: threads that spin while they wait make a step a hundred times slower when another
# program uses the same cores (measured: 1.6 s instead of 5 ms for a small UNet).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from PIL import Image

from dreamctl.domain.recipe import Base
from dreamctl.domain.run import ModelFile, model_digest, unpinned
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.families.base import Drawing, Model, Precision, ResolvedBase, load_family
from dreamctl.families.sources import resolve_base
from dreamctl.files import read_json, sha256_file
from dreamctl.generation.plan import check_form

MODEL_FILE = "model.json"
GPU_BATCH = 4


def best_device() -> torch.device:
    """The accelerator of this computer, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision_on(device: torch.device) -> Precision:
    """How pictures are computed where nothing else is said: halves on a GPU, fp32 elsewhere."""
    return "fp16" if device.type == "cuda" else "fp32"


def open_pipeline(
    base: Base | ResolvedBase,
    model_dir: Path | None = None,
    device: torch.device | str | None = None,
    precision: Precision | None = None,
) -> Pipe:
    """Load the base, and lay the model in `model_dir` over it.

    Raises DreamctlError when a file of the model is not the one that was trained, or when it was trained on another
    base; NotFound when there is no model; and what `resolve_base` raises.
    """
    place = torch.device(device) if device else best_device()
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (place.index or 0) >= counts.get(place.type, 1):
        raise InvalidInput(f"there is no {place} device here", field="device", hint="`dreamctl doctor` lists devices")
    resolved = base if isinstance(base, ResolvedBase) else resolve_base(base)
    if model_dir:
        verify_model(model_dir, resolved)
    model = load_family(resolved.family).open(resolved, precision or precision_on(place))
    model.to(place)
    if model_dir:
        model.apply(model_dir)
    return Pipe(model, place)


def verify_model(model_dir: Path, resolved: ResolvedBase) -> ModelFile:
    """Check that the model's files are whole and belong to this base."""
    file = model_dir / MODEL_FILE
    if not file.is_file():
        raise NotFound(f"{model_dir} holds no model: {MODEL_FILE} is missing")
    model = ModelFile.parse(read_json(file), str(file))
    for weights in model.files:
        path = model_dir / weights.file
        if not path.is_file():
            raise DreamctlError(f"{path} is missing from the model", hint="train again with --again")
        if sha256_file(path) != weights.sha256:
            raise DreamctlError(
                f"{path} is damaged: its SHA-256 is not the one in {MODEL_FILE}", hint="train again with --again"
            )
    if model_digest(model.files) != model.digest:
        raise DreamctlError(f"{file} was edited: its digest does not belong to its files")
    check_form(model, model_dir)
    if model.base_digest not in (resolved.digest, unpinned(model.base)):
        raise InvalidInput(
            f"the model in {model_dir} was taught on another base: {model.base} ({model.base_digest[:12]}), "
            f"not {resolved.base.source} as it is now ({resolved.digest[:12]})",
            field="base.source",
            hint="use the base that it was taught on, or teach it again on this one",
        )
    return model


class Pipe:
    """Makes pictures with an opened model on a device."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model
        self.device = device

    def make(
        self,
        prompt: str,
        negative: str = "",
        *,
        steps: int = 30,
        guidance: float = 7.5,
        width: int = 512,
        height: int = 512,
        seeds: Sequence[int] = (0,),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Image.Image]:
        """One picture (RGB, width x height pixels) for each seed, in order; the same seed gives the same picture.

        `on_progress` is told (denoising steps done, of how many), batches being counted together. Raises DreamctlError
        when memory does not suffice.
        """
        size = self.batch_size
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        for number, batch in enumerate(batches):
            drawing = Drawing([prompt] * len(batch), batch, negative, steps, guidance, width, height)
            yield from self.draw(drawing, _counted(on_progress, number * steps, steps, len(batches) * steps))

    @property
    def batch_size(self) -> int:
        # On a CPU a batch is no faster, and kernels that depend on the batch's size would change last bits.
        return GPU_BATCH if self.device.type == "cuda" else 1

    def draw(self, drawing: Drawing, on_step: Callable[[int], None] | None = None) -> list[Image.Image]:
        """One batch. Raises DreamctlError for sides that the model cannot make, and when memory does not suffice."""
        reduction = self.model.family.reduction
        if drawing.width % reduction or drawing.height % reduction:
            raise InvalidInput(
                f"{drawing.width}x{drawing.height}: both sides must be multiples of {reduction}", field="--size"
            )
        try:
            return self.model.draw(drawing, on_step)
        except torch.OutOfMemoryError as error:
            raise DreamctlError(
                f"the memory of {self.device} does not suffice for {drawing.width}x{drawing.height} pictures",
                hint="choose a smaller --size, or close other programs that use the device",
            ) from error


def _counted(
    told: Callable[[int, int], None] | None, before: int, steps: int, total: int
) -> Callable[[int], None] | None:
    """Steps of one batch counted on from those before it; some samplers (PNDM) take one more than they were asked."""
    return (lambda done: told(before + min(done, steps), total)) if told else None
