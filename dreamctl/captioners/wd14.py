"""Tags by the WD taggers (SmilingWolf). They know the vocabulary of drawn pictures, and are quick on a CPU.

A model is `model.onnx` and `selected_tags.csv`; what goes in and what comes out is told in `_pixels` and `_tags`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamctl import hub
from dreamctl.captioners.ahead import ahead
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.images import read_picture

if TYPE_CHECKING:
    from PIL import Image

MODEL = "SmilingWolf/wd-vit-tagger-v3"
THRESHOLD, CHARACTER_THRESHOLD = 0.35, 0.85  # as the models' author uses them
_NETWORK, _TAGS = "model.onnx", "selected_tags.csv"
_GENERAL, _CHARACTER = "0", "4"  # Danbooru's numbers of categories; 9 is the rating, which says nothing about a picture
_AHEAD = 4


@dataclass(frozen=True)
class _Tag:
    name: str
    category: str


class Wd14Captioner:
    """Tags with commas between them: characters first, then the rest, the surest first."""

    name = "wd14"
    takes = ("model", "revision", "threshold", "character_threshold", "exclude")
    account = "huggingface"
    bill = None

    def __init__(self, options: CaptionOptions) -> None:
        self._options = options
        self._excluded = {_key(tag) for tag in options.exclude}

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """The tags of each picture. Raises DreamctlError where onnxruntime is missing, InvalidInput for a folder that
        holds no tagger or a device that is not here, UnusablePicture, and what the hub may raise."""
        if not pictures:
            return
        _check_packages()
        source = self._options.model or MODEL
        folder = hub.model_folder(
            source,
            (_NETWORK, _TAGS),
            revision=self._options.revision,
            endpoint=self._options.endpoint,
            token=self._options.token,
        )
        tags = _read_tags(folder, source)
        session = _session(folder / _NETWORK, source, self._options.device)
        entry = session.get_inputs()[0]
        side = _side(entry.shape, source)
        for pixels in ahead(lambda path: _pixels(read_picture(path), side), pictures, _AHEAD):
            scores = session.run(None, {entry.name: pixels})[0][0]
            if len(scores) != len(tags):
                raise InvalidInput(
                    f"{source}: {_NETWORK} knows {len(scores)} tags and {_TAGS} lists {len(tags)}",
                    field="--model",
                    hint="take both files from the same model",
                )
            yield ", ".join(self._chosen(tags, [float(score) for score in scores]))

    def _chosen(self, tags: list[_Tag], scores: list[float]) -> Iterator[str]:
        options = self._options
        general = THRESHOLD if options.threshold is None else options.threshold
        character = CHARACTER_THRESHOLD if options.character_threshold is None else options.character_threshold
        by_score = sorted(zip(tags, scores, strict=True), key=lambda pair: -pair[1])
        for category, least in ((_CHARACTER, character), (_GENERAL, general)):
            for tag, score in by_score:
                if tag.category == category and score > least and _key(tag.name) not in self._excluded:
                    yield tag.name


def _check_packages() -> None:
    """Raises DreamctlError where what the tagger needs is not installed."""
    try:
        import numpy
        import onnxruntime

        del numpy, onnxruntime
    except ImportError as error:
        raise DreamctlError(
            f"captioner 'wd14' needs the package {error.name!r}",
            hint='install it: pip install "dreamctl[wd14]" (on NVIDIA, onnxruntime-gpu in its place)',
        ) from error


def _session(file: Path, source: str, device: str | None) -> Any:
    import onnxruntime

    known = onnxruntime.get_available_providers()
    wanted = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}.get((device or "").split(":")[0])
    if wanted and wanted not in known:
        raise InvalidInput(
            f"this onnxruntime cannot compute on {device}",
            field="device",
            hint="--device cpu; for NVIDIA, install onnxruntime-gpu in its place",
        )
    first = ("CUDAExecutionProvider",) if device is None and "CUDAExecutionProvider" in known else ()
    providers: list[Any] = [wanted] if wanted else list(first)
    if wanted == "CUDAExecutionProvider" and device and ":" in device:
        providers = [(wanted, {"device_id": int(device.split(":")[1])})]
    try:
        return onnxruntime.InferenceSession(str(file), providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise InvalidInput(
            f"{source}: {_NETWORK} cannot be loaded: {str(error).splitlines()[0]}", field="--model"
        ) from error


def _side(shape: Sequence[Any], source: str) -> int:
    """The side of the square that the network looks at, from its input's shape (batch, height, width, 3)."""
    if len(shape) == 4 and isinstance(shape[1], int) and shape[1] == shape[2] and shape[3] == 3:
        return shape[1]
    raise InvalidInput(
        f"{source}: {_NETWORK} takes {list(shape)}, not a batch of square pictures with 3 channels last",
        field="--model",
        hint=f"a WD tagger is needed, such as {MODEL}",
    )


def _pixels(picture: Image.Image, side: int) -> Any:
    """The whole picture on a white square of `side`, as the networks were taught: (1, side, side, BGR), 0 to 255."""
    import numpy as np
    from PIL import Image

    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    resized = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, dtype=np.float32)[None, :, :, ::-1])


def _read_tags(folder: Path, source: str) -> list[_Tag]:
    for name in (_NETWORK, _TAGS):
        if not (folder / name).is_file():
            raise InvalidInput(
                f"{source} is not a WD tagger: {name} is missing",
                field="--model",
                hint=f"expected a folder with {_NETWORK} and {_TAGS}, or a hub id such as {MODEL}",
            )
    with open(folder / _TAGS, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        try:
            return [_Tag(_spaced(row["name"]), row["category"]) for row in rows]
        except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidInput(
                f"{folder / _TAGS} is not a table with the columns name and category", field="--model"
            ) from error


def _spaced(tag: str) -> str:
    """Spaces for underscores, except in faces such as ^_^ and o_o, which hold no word."""
    return tag.replace("_", " ") if re.search(r"[^\W\d_]{2}", tag) else tag


def _key(tag: str) -> str:
    return _spaced(tag.strip()).lower()
