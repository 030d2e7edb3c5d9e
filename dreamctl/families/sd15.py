"""Stable Diffusion 1.x (and 2.x, which has the same layout): one CLIP text encoder, a UNet, discrete noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dreamctl.families.base import Family, Model, Noised, ResolvedBase, Tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class SD15(Family):
    """Facts about Stable Diffusion 1.x."""

    name: ClassVar[str] = "sd15"
    title: ClassVar[str] = "Stable Diffusion 1.x"
    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
    denoiser: ClassVar[str] = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    adapter_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    text_adapter_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    reduction: ClassVar[int] = 8

    def recognises(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        # 9 channels would be an inpainting model, whose extra inputs nobody here fills
        return denoiser.get("in_channels", 4) == 4 and "text_encoder_2" not in index

    def load(self, folder: Path, base: ResolvedBase, dtype: torch.dtype) -> SD15Model:
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            variant=base.base.variant,
            torch_dtype=dtype,
            use_safetensors=True,  # a pickle could run code
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return SD15Model(self, pipeline)


class SD15Model(Model):
    """An opened Stable Diffusion 1.x."""

    def __init__(self, family: SD15, pipeline: Any) -> None:
        from dreamctl.families.noising import DiscreteNoise

        components: dict[str, nn.Module] = {
            name: pipeline.components[name].eval() for name in ("vae", "text_encoder", "unet")
        }
        super().__init__(family, components)
        self._tokenizer = pipeline.tokenizer
        self._scheduler = pipeline.scheduler
        self._noise = DiscreteNoise(pipeline.scheduler.config)
        self._scaling = float(pipeline.vae.config.scaling_factor)

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        tokens = self._tokenizer(
            list(texts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return {"ids": tokens.input_ids, "mask": tokens.attention_mask}

    def embed(self, tokens: Tensors) -> Tensors:
        encoder: Any = self.components["text_encoder"]
        # SD 1.x lets padding be seen, as it was trained; only models that say so hide it
        mask = tokens["mask"] if getattr(encoder.config, "use_attention_mask", False) else None
        return {"prompt": encoder(tokens["ids"], attention_mask=mask)[0]}

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        vae: Any = self.components["vae"]
        latents: Tensor = vae.encode(pixels).latent_dist.mode() * self._scaling
        return latents

    def noised(self, latents: Tensor, noise: Tensor, moment: Tensor, snr_gamma: float | None = None) -> Noised:
        return self._noise.noised(latents, noise, moment, snr_gamma)

    def predict(self, noised: Noised, embeddings: Tensors) -> Tensor:
        answer: Tensor = self.denoiser(
            noised.inputs, noised.timesteps, encoder_hidden_states=embeddings["prompt"], return_dict=False
        )[0]
        return answer

    def pipeline(self) -> Any:
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            **{name: self.components.get(name) for name in ("vae", "text_encoder", "unet")},
            tokenizer=self._tokenizer,
            scheduler=type(self._scheduler).from_config(self._scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
