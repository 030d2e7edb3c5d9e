"""Checkpoints: safetensors and JSON in a folder that is there wholly or not at all, verified when read.

`weights.safetensors` (what is taught, fp32, by name), `optimizer.safetensors` (`NAME|KEY`), `checkpoint.json` (step,
recent losses, gradient scaler, the optimizer's plain numbers, sha256 of both files). No random state: see `draws.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamctl.errors import DreamctlError
from dreamctl.families.adapters import os_errors
from dreamctl.files import read_json, replacing_folder, sha256_file, write_json

SCHEMA = 1
INDEX = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass
class Progress:
    """Where the training is: finished steps, and the losses of the last of them."""

    step: int = 0
    losses: list[float] = field(default_factory=list)


class Damaged(Exception):
    """A checkpoint that cannot be used; the text says why."""


def save_checkpoint(
    folder: Path,
    progress: Progress,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any] | None,
) -> Path:
    """Write `folder/step-NNNNNN` and return it. Raises DreamctlError when the disk is full."""
    path = folder / f"step-{progress.step:06d}"
    tensors, numbers = _flattened(weights, optimizer)
    with replacing_folder(path) as temporary:
        with os_errors():
            save_file({name: _still(parameter) for name, parameter in weights.items()}, temporary / WEIGHTS)
            save_file(tensors, temporary / OPTIMIZER)
        index = {
            "schema": SCHEMA,
            "step": progress.step,
            "losses": progress.losses,
            "scaler": dict(scaler) if scaler else None,
            "numbers": numbers,
            "files": {name: sha256_file(temporary / name) for name in (WEIGHTS, OPTIMIZER)},
        }
        write_json(temporary / INDEX, index)
    return path


def _still(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _flattened(
    weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, numbers = {}, {}
    for name, parameter in weights.items():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"{name}|{key}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{name}|{key}"] = value
    return tensors, numbers


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints, the newest first. Left-overs of a killed writer are no checkpoints."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def restore_checkpoint(
    path: Path, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Any] | None]:
    """Put a checkpoint's weights and optimizer state in place; give the progress and the gradient scaler's state.

    Everything is read and checked before anything is changed. Raises Damaged.
    """
    index, saved, state = _read(path)
    if set(saved) != set(weights):
        raise Damaged("it holds other weights than this recipe teaches")
    if any(saved[name].shape != parameter.shape for name, parameter in weights.items()):
        raise Damaged("its weights have other shapes")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
    _restore_optimizer(optimizer, weights, {**state, **index["numbers"]})
    return Progress(index["step"], index["losses"]), index["scaler"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    try:
        index = read_json(path / INDEX)
        if index["schema"] != SCHEMA:
            raise Damaged(f"it has schema {index['schema']}, not {SCHEMA}")
        for name, expected in index["files"].items():
            if sha256_file(path / name) != expected:
                raise Damaged(f"the SHA-256 of {name} is wrong")
        return index, load_file(path / WEIGHTS), load_file(path / OPTIMIZER)
    except (DreamctlError, OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(str(error) or type(error).__name__) from error


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], state: Mapping[str, Any]
) -> None:
    names = {parameter: name for name, parameter in weights.items()}
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        name, _, part = key.rpartition("|")
        by_name.setdefault(name, {})[part] = value
    plain = optimizer.state_dict()
    numbered: dict[int, dict[str, Any]] = {}
    for group, described in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        for parameter, number in zip(group["params"], described["params"], strict=True):
            if names[parameter] in by_name:
                numbered[number] = by_name[names[parameter]]
    optimizer.load_state_dict({"state": numbered, "param_groups": plain["param_groups"]})


def tidy_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints."""
    for path in checkpoints_in(folder)[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what a killed writer left half-written in `folder`: names that begin with a dot."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
