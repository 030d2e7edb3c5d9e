"""The small base model that ships with the program, the world that it draws, and how both were made.

This file holds two light facts and imports neither torch nor numpy. It does not know how a model is loaded.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
"""The folder of the pipeline, in the layout that `StableDiffusionPipeline.from_pretrained` reads."""

NOTICE: str = (
    "This is a small demonstration model; for real pictures pass --base-model, "
    "e.g. --base-model stable-diffusion-v1-5/stable-diffusion-v1-5"
)
"""The one line that commands show when they use the built-in model."""
