"""Writes the trained parts as one pipeline folder in the standard diffusers layout, float16, replacing the old whole.

It does not know how the parts were trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from dreamctl.builtin import MODEL_DIR
from dreamctl.builtin.training.parallel import Place
from dreamctl.builtin.training.unet import load_average, make_scheduler
from dreamctl.builtin.training.vae import load_vae
from dreamctl.files import replacing_folder


def export(place: Place) -> None:
    """Writes `dreamctl/builtin/model/` from the work folder's checkpoints."""
    if place.leads:
        steps = export_to(place.work, MODEL_DIR)
        place.say(f"exported {steps} UNet steps to {MODEL_DIR}")


def export_to(work: Path, folder: Path) -> int:
    """Writes the pipeline of `work` to the folder and returns the UNet's steps; a reader of the folder sees the old
    files or the new ones, but for the moment between two renames.
    """
    text_encoder, unet, steps = load_average(work)
    pipeline = StableDiffusionPipeline(
        vae=load_vae(work, "vae_sharp" if (work / "vae_sharp" / "config.json").exists() else "vae"),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16)
    with replacing_folder(folder) as fresh:
        pipeline.save_pretrained(fresh, safe_serialization=True)
        for name in ("vocab.json", "merges.txt"):  # for programs that do not read tokenizer.json
            shutil.copyfile(work / "tokenizer" / name, fresh / "tokenizer" / name)
        _forget_origin(fresh)
    return steps


def _forget_origin(folder: Path) -> None:
    """Removes from the configurations the path of the work folder, which diffusers writes into them."""
    for path in folder.rglob("*.json"):
        settings = json.loads(path.read_text())
        if settings.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
