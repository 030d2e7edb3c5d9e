"""The door to a model architecture: light facts without torch, and an opened model that the loop can train.

The loop, the sampler and the exporter never ask which family they have: everything that differs (how text becomes
embeddings, how noise is added, what is predicted, what the files are called) is behind `Model`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dreamctl import plugins
from dreamctl.domain.recipe import Base, Method
from dreamctl.errors import InvalidInput

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
Tensors = dict[str, "Tensor"]
"""Token ids or embeddings by a name that only the family knows; the first dimension of each is the prompt."""

ADAPTER_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class ResolvedBase:
    """A base model, found: `base` with its revision pinned, the digest of its files, and the family it belongs to.

    `folder` is None for a hub id that has not been downloaded yet.
    """

    base: Base
    digest: str
    family: str
    folder: Path | None


@dataclass(frozen=True)
class Noised:
    """What the denoiser sees and what it should say, for N pictures of shape (C, H, W) in latent cells."""

    inputs: Tensor  # (N, C, H, W)
    timesteps: Tensor  # (N,)
    target: Tensor  # (N, C, H, W)
    weights: Tensor  # (N,) of the loss; ones without Min-SNR


@dataclass(frozen=True)
class Drawing:
    """What to draw: one picture for each pair of a prompt and a seed."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    negative: str
    steps: int
    guidance: float
    width: int
    height: int


class Family(ABC):
    """Facts about an architecture, and the way to open a model of it. Importing and making one needs no torch."""

    name: ClassVar[str]
    title: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]  # `_class_name`s in model_index.json
    denoiser: ClassVar[str]  # names of components are those of the diffusers layout
    text_encoders: ClassVar[tuple[str, ...]]
    methods: ClassVar[tuple[str, ...]] = ("lora", "full")
    adapter_targets: ClassVar[tuple[str, ...]]  # ends of module names in the denoiser
    text_adapter_targets: ClassVar[tuple[str, ...]]
    reduction: ClassVar[int]  # pixels per latent cell and side

    @abstractmethod
    def recognises(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """Whether a model with this model_index.json and this denoiser's config.json is of the family."""

    def open(self, base: ResolvedBase, precision: Precision = "fp32") -> Model:
        """Load the whole model on the CPU. Raises NotFound, InvalidInput, CredentialsError or ProviderError."""
        from dreamctl.families.adapters import quiet_libraries, torch_dtype
        from dreamctl.families.sources import fetch

        quiet_libraries()
        folder = fetch(base)
        try:
            with warnings.catch_warnings():
                # diffusers renames `torch_dtype` to `dtype`; the older name is the one that all versions know
                warnings.simplefilter("ignore", FutureWarning)
                return self.load(folder, base, torch_dtype(precision))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(
                f"{base.base.source} cannot be loaded: {str(error).splitlines()[0]}",
                field="base.source",
                hint="a diffusers folder with safetensors weights is expected",
            ) from error

    @abstractmethod
    def load(self, folder: Path, base: ResolvedBase, dtype: torch.dtype) -> Model:
        """Load the model from its folder. Errors of the libraries are translated by `open`."""


class Model(ABC):
    """An opened model. `components` maps names of the diffusers layout to modules; removing one frees its memory."""

    def __init__(self, family: Family, components: dict[str, nn.Module]) -> None:
        self.family = family
        self.components = components

    @property
    def denoiser(self) -> nn.Module:
        return self.components[self.family.denoiser]

    def text_encoders(self) -> dict[str, nn.Module]:
        """The text encoders that are still loaded."""
        return {name: self.components[name] for name in self.family.text_encoders if name in self.components}

    def to(self, device: Any) -> None:
        for component in self.components.values():
            component.to(device)

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Token ids, padded to the model's length: (N, L) each, on the CPU."""

    @abstractmethod
    def embed(self, tokens: Tensors) -> Tensors:
        """What the denoiser is conditioned on. Differentiable; needs the text encoders."""

    @abstractmethod
    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Latents as the denoiser sees them, of pixels (N, 3, H, W) in [-1, 1]. Deterministic: the posterior's mode."""

    @abstractmethod
    def noised(self, latents: Tensor, noise: Tensor, moment: Tensor, snr_gamma: float | None = None) -> Noised:
        """Add noise (N, C, H, W) at the moments (N,) in [0, 1) of the process, 0 being clean."""

    @abstractmethod
    def predict(self, noised: Noised, embeddings: Tensors) -> Tensor:
        """The denoiser's answer, comparable with `noised.target`."""

    @abstractmethod
    def pipeline(self) -> Any:
        """A diffusers pipeline over the loaded components, with the base's own sampler."""

    def draw(self, drawing: Drawing, on_step: Callable[[int], None] | None = None) -> list[Image.Image]:
        """Make a batch of pictures; each depends on its own seed. `on_step` is told each denoising step done."""
        import torch

        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)

        def told(_pipeline: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if on_step:
                on_step(step + 1)
            return values

        with torch.no_grad():
            result = pipeline(
                **self.call_arguments(drawing),
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in drawing.seeds],
                callback_on_step_end=told,
            )
        return list(result.images)

    def call_arguments(self, drawing: Drawing) -> dict[str, Any]:
        """The pipeline's arguments; a family whose pipeline is called otherwise overrides this."""
        return {
            "prompt": list(drawing.prompts),
            "negative_prompt": [drawing.negative] * len(drawing.prompts),
            "num_inference_steps": drawing.steps,
            "guidance_scale": drawing.guidance,
            "width": drawing.width,
            "height": drawing.height,
        }

    def taught(self, method: Method) -> dict[str, nn.Module]:
        """The components that the method teaches, by name."""
        names = [self.family.denoiser, *(self.family.text_encoders if method.train_text_encoder else ())]
        return {name: self.components[name] for name in names}

    def prepare(self, method: Method) -> None:
        """Leave gradients only on what is taught: whole components, or fresh adapters in them."""
        from dreamctl.families.adapters import add_adapter

        for component in self.components.values():
            component.requires_grad_(False)
        for name, component in self.taught(method).items():
            if method.name == "full":
                component.requires_grad_(True)
            else:
                targets = method.targets if name == self.family.denoiser else self.family.text_adapter_targets
                add_adapter(component, targets, method)

    def save_memory(self, method: Method) -> None:
        """Recompute activations in the backward pass instead of keeping them (gradient checkpointing)."""
        names = ("enable_gradient_checkpointing", "activation_checkpointing_enable", "gradient_checkpointing_enable")
        for component in self.taught(method).values():
            next(getattr(component, name) for name in names if hasattr(component, name))()  # diffusers, transformers

    def save(self, folder: Path, method: Method, precision: Precision) -> None:
        """Write what was taught as diffusers reads it: component folders, or one adapter file."""
        from dreamctl.families.adapters import save_adapters, save_component

        taught = self.taught(method)
        if method.name == "lora":
            save_adapters(self.pipeline(), taught, folder)
            return
        for name, component in taught.items():
            save_component(component, folder / name, precision)

    def apply(self, folder: Path) -> None:
        """Put what `save` wrote in place of, or on top of, the base's weights."""
        from dreamctl.families.adapters import load_adapters, load_component

        if (folder / ADAPTER_FILE).is_file():
            load_adapters(self.pipeline(), folder)
        for name, component in list(self.components.items()):
            if (folder / name).is_dir():
                self.components[name] = load_component(component, folder / name)


def family_names() -> list[str]:
    return plugins.names("families")


def load_family(name: str) -> Family:
    """The family of that name, ours or another package's. Raises NotFound that names the nearest known one."""
    family: Family = plugins.load("families", name)()
    return family
