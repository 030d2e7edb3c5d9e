"""The doors' lists of names: built-in parts and other people's go through the same look-up.

A table of "module:Class" strings (of trainers "module:VALUE") for ours; entry points (group `dreamctl.backends` and so
on) for names not in it.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points
from typing import Any

from dreamctl.errors import DreamctlError, NotFound, did_you_mean

BUILT_IN = {
    "families": {"sd15": "dreamctl.families.sd15:SD15"},
    "backends": {
        "local": "dreamctl.backends.local:LocalBackend",
        "runpod": "dreamctl.backends.runpod:backend",
        "replicate": "dreamctl.backends.replicate:backend",
    },
    "captioners": {
        "florence2": "dreamctl.captioners.florence2:Florence2Captioner",
        "openai": "dreamctl.captioners.openai:OpenAICaptioner",
        "wd14": "dreamctl.captioners.wd14:Wd14Captioner",
        "builtin": "dreamctl.captioners.builtin:BuiltinCaptioner",
        "template": "dreamctl.captioners.template:TemplateCaptioner",
        "none": "dreamctl.captioners.none:NoCaptioner",
    },
    "storages": {
        "s3": "dreamctl.storage.s3:S3Storage",
        "file": "dreamctl.storage.local:LocalStorage",
        "gs": "dreamctl.storage.gcs:GcsStorage",
    },
    "trainers": {
        "sd-scripts": "dreamctl.trainers.sd_scripts:TRAINER",
        "musubi": "dreamctl.trainers.musubi:TRAINER",
        "ai-toolkit": "dreamctl.trainers.ai_toolkit:TRAINER",
        "diffusers": "dreamctl.trainers.image_folder:TRAINER",
    },
}


TAUGHT_ELSEWHERE = ("flux", "sdxl")
"""Families that providers' trainers teach, and that dreamctl itself neither trains nor draws with yet."""


def names(door: str) -> list[str]:
    """Every name that `door` knows, ours first."""
    foreign = {point.name for point in entry_points(group=f"dreamctl.{door}")}
    return [*BUILT_IN[door], *sorted(foreign - set(BUILT_IN[door]))]


def require(module: str, package: str, extra: str) -> None:
    """Raises DreamctlError that says how to install a package that is not there."""
    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise DreamctlError(f"this needs the package {package!r}", hint=f'install it: pip install "dreamctl[{extra}]"')


def load(door: str, name: str) -> Any:
    """The class behind `name`. Raises NotFound with the nearest name, DreamctlError when its package is missing."""
    target = BUILT_IN[door].get(name)
    if target is None:
        points = [point for point in entry_points(group=f"dreamctl.{door}") if point.name == name]
        if not points:
            what = door.removesuffix("s") if door != "families" else "family"
            raise NotFound(f"no {what} named {name!r}", field=what, hint=did_you_mean(name, names(door)))
        target = points[0].value
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        missing = error.name or str(error)
        raise DreamctlError(
            f"{door}: {name!r} needs the package {missing!r}", hint='install it: pip install "dreamctl[all]"'
        ) from error
