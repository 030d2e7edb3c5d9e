"""Captions by Florence-2, a small vision-language model that runs here (Xiao and others, 2023, arXiv 2311.06242).

It was taught fixed questions, and its tasks are those. A free prompt goes to the model as it stands: one that is near a
question it knows ("Describe this image in detail.") is answered like that question, others may be answered anyhow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamctl import hub
from dreamctl.captioners.ahead import ahead, batches
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError, InvalidInput, did_you_mean
from dreamctl.files import read_json
from dreamctl.images import read_picture
from dreamctl.machine import ask_torch, choose_device

if TYPE_CHECKING:
    from PIL import Image

MODEL = "florence-community/Florence-2-base"
PROMPT = "Describe this image in detail."
TASKS = {"caption": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "more-detailed": "<MORE_DETAILED_CAPTION>"}

# No pickles: weights come as safetensors or not at all.
_FILES = ("*.json", "*.txt", "*.safetensors")
_BEAMS = 3  # as its authors generate, and its published generation_config.json says
_MAX_TOKENS = 512  # the longest captions of its training have about 200
_BATCH_ON_GPU, _BATCH_ON_CPU = 8, 1
_MARKUP = re.compile(r"<[^<>\s]*>")


class Florence2Captioner:
    """Answers a task's question, or a free prompt, about each picture. Nothing is drawn by lot: beam search alone."""

    name = "florence2"
    takes = ("model", "revision", "task", "prompt", "max_tokens", "batch_size")
    account = "huggingface"
    bill = None

    def __init__(self, options: CaptionOptions) -> None:
        self._options = options
        self._prompt = _prompt(options)

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """A caption for each picture. Raises InvalidInput for a folder that holds another model or a device that is not
        here, UnusablePicture, DreamctlError where a package or memory is missing, and what the hub may raise."""
        if not pictures:
            return
        model = self._load()
        size = self._options.batch_size or (_BATCH_ON_CPU if model.device == "cpu" else _BATCH_ON_GPU)
        for batch in batches(ahead(read_picture, pictures, 2 * size), size):
            yield from model.describe(batch, self._prompt, self._options.max_tokens or _MAX_TOKENS)

    def _load(self) -> _Loaded:
        options = self._options
        torch, transformers = _packages()
        device = _device(options.device)
        folder = hub.model_folder(
            options.model or MODEL, _FILES, revision=options.revision, endpoint=options.endpoint, token=options.token
        )
        _check(folder, options.model or MODEL)
        # Its weights are published in fp16, which MPS and CPUs compute slowly or wrongly.
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        try:
            model = transformers.Florence2ForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True
            )
            processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InvalidInput(
                f"{options.model or MODEL} cannot be loaded: {str(error).splitlines()[0]}",
                field="--model",
                hint=f"a whole Florence-2 in transformers' own layout is needed, such as {MODEL}",
            ) from error
        return _Loaded(model.to(device).eval(), processor, device, dtype)


@dataclass(frozen=True)
class _Loaded:
    """The model in memory, and its processor."""

    model: Any
    processor: Any
    device: str
    dtype: Any

    def describe(self, pictures: list[Image.Image], prompt: str, max_tokens: int) -> list[str]:
        """A caption for each picture, all in one batch."""
        import torch

        inputs = self.processor(text=[prompt] * len(pictures), images=pictures, return_tensors="pt")
        try:
            with torch.inference_mode():
                tokens = self.model.generate(
                    **inputs.to(self.device, self.dtype), max_new_tokens=max_tokens, num_beams=_BEAMS, do_sample=False
                )
        except torch.OutOfMemoryError as error:
            raise DreamctlError(
                f"{len(pictures)} pictures at once need more memory than {self.device} has",
                hint=f"run it again with --batch-size {max(1, len(pictures) // 2)}, or with --device cpu",
            ) from error
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)  # padding is special too
        return [self._plain(text, prompt, picture) for text, picture in zip(texts, pictures, strict=True)]

    def _plain(self, text: str, prompt: str, picture: Image.Image) -> str:
        """The answer as its task defines it, without the marks of places that a free prompt may bring about."""
        answer = self.processor.post_process_generation(text=text, task=prompt, image_size=picture.size)[prompt]
        return " ".join(_MARKUP.sub(" ", str(answer)).split())


def _prompt(options: CaptionOptions) -> str:
    """The token of a task, or the free prompt. Raises InvalidInput."""
    if options.task and options.prompt:
        raise InvalidInput("--task and --prompt exclude each other", field="--task", hint="leave one of them out")
    if options.task:
        word = options.task.strip("<> ").lower().replace("_", "-")
        known = word if word in TASKS else word.removesuffix("-caption")
        if known not in TASKS:
            raise InvalidInput(f"--task {options.task!r} is not known", field="--task", hint=did_you_mean(word, TASKS))
        return TASKS[known]
    prompt = options.prompt or PROMPT
    if re.search(r"<[A-Z_]+>", prompt):  # the processor would put another question in its place, or break
        raise InvalidInput(
            f"--prompt {prompt!r} holds the name of a task", field="--prompt", hint=f"--task {' | '.join(TASKS)}"
        )
    return prompt


def _packages() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise DreamctlError(
            f"captioner 'florence2' needs the package {error.name!r}",
            hint='install it: pip install "dreamctl[local]"; or choose another captioner with --captioner',
        ) from error
    transformers.utils.logging.disable_progress_bar()  # the command tells its own progress
    transformers.utils.logging.set_verbosity_error()
    return torch, transformers


def _device(wanted: str | None) -> str:
    asked = ask_torch()
    device = choose_device(wanted, asked.gpus if asked else ())
    if device is None:
        raise InvalidInput(f"device {wanted} is not here", field="device", hint="`dreamctl doctor` says what is")
    return device


def _check(folder: Path, source: str) -> None:
    """Raises InvalidInput unless the folder holds a Florence-2 in transformers' own layout."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    kind = config.get("model_type") if isinstance(config, dict) else None
    hint = f"such as {MODEL}, or florence-community/Florence-2-large"
    if kind != "florence2":
        what = f"a model of type {kind!r}" if kind else "no model: config.json is missing or names none"
        raise InvalidInput(f"{source} holds {what}, not Florence-2", field="--model", hint=hint)
    if "auto_map" in config:  # the layout of microsoft/Florence-2-*, which needs code from the hub
        raise InvalidInput(
            f"{source} brings code of its own, which is never run: its layout is not transformers' own",
            field="--model",
            hint=hint,
        )
