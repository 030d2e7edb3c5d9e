"""What is taught, as one module with one forward pass from latents and text to a loss per picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamctl.domain.recipe import Recipe
from dreamctl.families.base import Model, Tensors


class Student(nn.Module):
    """The denoiser, and the text encoders if they are taught: one module, so that processes average it whole."""

    def __init__(self, model: Model, recipe: Recipe) -> None:
        super().__init__()
        self._model = model
        self._snr_gamma = recipe.training.snr_gamma
        self._embeds = recipe.method.train_text_encoder
        self.taught = nn.ModuleDict(model.taught(recipe.method))

    def forward(self, latents: Tensor, noise: Tensor, moments: Tensor, text: Tensors, masks: Tensor) -> Tensor:
        """The loss (N,) of N pictures: latents and noise (N, C, h, w), moments (N,) in [0, 1), masks (N, 1, h, w)."""
        noised = self._model.noised(latents, noise, moments, self._snr_gamma)
        embeddings = self._model.embed(text) if self._embeds else text
        prediction = self._model.predict(noised, embeddings)
        return picture_losses(prediction, noised.target, noised.weights, masks)

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The parameters that are taught, by name."""
        return {name: parameter for name, parameter in self.taught.named_parameters() if parameter.requires_grad}


def picture_losses(prediction: Tensor, target: Tensor, weights: Tensor, masks: Tensor) -> Tensor:
    """Squared error (N,): the mean over each picture's unmasked part, so that a small subject counts as a large one."""
    squared = (prediction.float() - target.float()).square().mean(dim=1, keepdim=True)
    covered = masks.sum(dim=(1, 2, 3)).clamp(min=torch.finfo(torch.float32).tiny)
    return (squared * masks).sum(dim=(1, 2, 3)) / covered * weights
