"""What every family shares in reading and writing weights: LoRA adapters (peft) and whole components (diffusers)."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamctl.domain.recipe import Method
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.families.base import ADAPTER_FILE, Precision
from dreamctl.files import read_json, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

ADAPTER = "default"


def torch_dtype(precision: Precision) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def quiet_libraries() -> None:
    """Keep progress bars and advice of diffusers and transformers off stderr, which belongs to dreamctl's own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # some advice is given while importing
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def add_adapter(component: Any, targets: Sequence[str], method: Method) -> None:
    """Add trainable fp32 LoRA matrices. Raises InvalidInput when an end of a module name matches no module."""
    import torch
    from peft import LoraConfig

    for target in targets:
        _check_target(component, target)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=list(targets),
        init_lora_weights=True,
    )
    component.add_adapter(config, adapter_name=ADAPTER)
    for parameter in component.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def _check_target(component: nn.Module, target: str) -> None:
    import torch

    fitting = (torch.nn.Linear, torch.nn.Conv2d)
    names = [name for name, module in component.named_modules() if isinstance(module, fitting)]
    if not any(name == target or name.endswith("." + target) for name in names):
        ends = {re.sub(r"^.*\.(?=\D)", "", name) for name in names}
        raise InvalidInput(
            f"no layer of {type(component).__name__} ends with {target!r}",
            field="method.targets",
            hint=did_you_mean(target, ends),
        )


def save_adapters(pipeline: Any, components: Mapping[str, nn.Module], folder: Path) -> None:
    """Write one diffusers LoRA file; rank and alpha of each component stand in its metadata."""
    from peft import get_peft_model_state_dict

    arguments: dict[str, Any] = {}
    for name, component in components.items():
        state = get_peft_model_state_dict(component, adapter_name=ADAPTER)
        arguments[f"{name}_lora_layers"] = {
            _portable(key): value.detach().cpu().contiguous() for key, value in state.items()
        }
        arguments[f"{name}_lora_adapter_metadata"] = _metadata(component)
    with os_errors():
        type(pipeline).save_lora_weights(folder, **arguments)
    settle_header(folder / ADAPTER_FILE)


def settle_header(file: Path) -> None:
    """Sort a safetensors file's metadata, which the library writes in random order: equal weights, equal bytes."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors aligned
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])


def _portable(key: str) -> str:
    """The key as all readers know it: transformers 5 dropped CLIP's inner `text_model`, others still expect it."""
    return f"text_model.{key}" if key.startswith("encoder.layers.") else key


def _metadata(component: Any) -> dict[str, Any]:
    """The part of peft's configuration that decides the result, and that every version of peft knows."""
    config = component.peft_config[ADAPTER]
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
        "bias": "none",
    }


def load_adapters(pipeline: Any, folder: Path) -> None:
    """Load the adapter file onto the pipeline's components."""
    pipeline.load_lora_weights(folder, weight_name=ADAPTER_FILE, adapter_name=ADAPTER)


def save_component(component: nn.Module, folder: Path, precision: Precision) -> None:
    """Write one component in the diffusers layout, in `precision`, without touching the live weights."""
    written: Any = copy.deepcopy(component).to(torch_dtype(precision))
    with os_errors():
        written.save_pretrained(folder)
    # diffusers writes where the base lay on this computer
    config = read_json(folder / "config.json")
    if config.pop("_name_or_path", None) is not None:
        write_json(folder / "config.json", config)


def load_component(component: Any, folder: Path) -> Any:
    """A component of the same class, dtype and device, with the weights in `folder`."""
    parameter = next(component.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as in `Family.open`
        loaded = type(component).from_pretrained(folder, torch_dtype=parameter.dtype, use_safetensors=True)
    return loaded.to(parameter.device).eval()


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Turn safetensors' own error about a full disk and the like back into the system's."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if not number:
            raise
        code = int(number.group(1))
        raise OSError(code, os.strerror(code)) from error
