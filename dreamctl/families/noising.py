"""Noise in discrete steps, as DDPM and its descendants (SD 1.x, 2.x, XL) learn it.

Sources: Ho et al. 2020 (epsilon), Salimans and Ho 2022 (v), Lin et al. 2023 (zero terminal SNR),
Hang et al. 2023 (Min-SNR, with the weights for v-prediction of its appendix).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dreamctl.errors import InvalidInput
from dreamctl.families.base import Noised

if TYPE_CHECKING:
    from torch import Tensor


class DiscreteNoise:
    """The forward process of a scheduler's configuration."""

    def __init__(self, config: Any) -> None:
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(config)
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.float()
        self.prediction: str = scheduler.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise InvalidInput(f"the base's scheduler predicts {self.prediction!r}, which cannot be trained")

    def noised(self, latents: Tensor, noise: Tensor, moment: Tensor, snr_gamma: float | None) -> Noised:
        """Latents (N, C, H, W) with noise at moments (N,) in [0, 1), the target, and the loss weights (N,)."""
        timesteps = (moment * len(self.alphas_cumprod)).long().clamp(max=len(self.alphas_cumprod) - 1)
        alphas = self.alphas_cumprod.to(latents.device)[timesteps]
        signal = alphas.sqrt().view(-1, 1, 1, 1)
        sigma = (1 - alphas).sqrt().view(-1, 1, 1, 1)
        target = {
            "epsilon": noise,
            "v_prediction": signal * noise - sigma * latents,
            "sample": latents,
        }[self.prediction]
        weights = alphas.new_ones(len(alphas)) if snr_gamma is None else self.min_snr(alphas, snr_gamma)
        return Noised(signal * latents + sigma * noise, timesteps, target, weights)

    def min_snr(self, alphas: Tensor, gamma: float) -> Tensor:
        """Loss weights (N,) that are those of predicting the picture with its SNR capped at `gamma`.

        Written without a division by SNR, which is zero at the last step of a zero-terminal-SNR schedule:
        epsilon min(snr, g) / snr = min(1, g (1-a) / a); v min(snr, g) / (snr+1) = min(a, g (1-a)); sample min(snr, g).
        """
        capped = gamma * (1 - alphas)
        if self.prediction == "v_prediction":
            return alphas.minimum(capped)
        if self.prediction == "sample":
            return (alphas / (1 - alphas)).clamp(max=gamma)
        return (capped / alphas).clamp(max=1.0)
