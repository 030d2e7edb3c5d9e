"""The subject of a picture, cut out of its background by a model of rembg, which only `--remove-background` needs.

The parent process calls `get_ready` once, which fetches and tries the model; then any process may ask `subject`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dreamctl.badpictures import UnusablePicture
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError, did_you_mean
from dreamctl.files import os_hint, os_reason, sha256_file

MODEL = "u2net"
"""Its authors put the weights under Apache-2.0 (https://github.com/xuebinqin/U-2-Net/issues/208).

IS-Net and BiRefNet were taught with pictures that are not for commercial use (DIS5K); for that, bria-rmbg, which rembg
itself takes by default, wants to be paid.
"""
MODELS = (
    "u2net", "u2netp", "u2net_human_seg", "silueta", "isnet-general-use", "isnet-anime", "birefnet-general",
    "birefnet-general-lite", "birefnet-portrait", "birefnet-dis", "birefnet-hrsod", "birefnet-cod", "birefnet-massive",
    "bria-rmbg",
)  # fmt: skip
"""Those of rembg that compute here and find one subject. Others ask for points, find clothes, or send pictures away."""
SIDE = 1024
"""Pixels; no model looks at a longer side."""

_KINDS = {320: "u2net", SIDE: "isnet-general-use"}  # whose way of asking a model file is asked in, by its input's side
_RELEASE = "https://github.com/danielgatis/rembg/releases/tag/v0.0.0"
# Of the model's highest and lowest answer: a probability, and of BiRefNet a logit, where 0.5 is a probability of 0.62.
_SURE = 0.5


@dataclass(frozen=True)
class Cutout:
    """Which model cuts out: a name of rembg's, or a `file` with its digest."""

    model: str
    file: Path | None = None
    sha256: str = ""

    @property
    def label(self) -> str:
        """As `dataset.json` holds it: another file is another model, wherever it lies."""
        return f"{self.model}@{self.sha256[:16]}" if self.file else self.model


def parse_model(text: str) -> Cutout:
    """The model that a name or the path of a `.onnx` file means. Raises InvalidInput, NotFound."""
    if text in MODELS:
        return Cutout(text)
    file = Path(text).expanduser().absolute()
    if file.suffix.lower() != ".onnx":
        raise InvalidInput(
            f"{text!r} is neither a model that cuts out nor a .onnx file",
            field="--cutout-model",
            hint=did_you_mean(text, MODELS),
        )
    if not file.is_file():
        raise NotFound(f"{file} does not exist", field="--cutout-model", hint="check the path of the model's file")
    try:
        return Cutout(file.name, file, sha256_file(file))
    except OSError as error:
        raise DreamctlError(
            f"{file}: {os_reason(error)}", field="--cutout-model", hint=os_hint(error) or "name another file"
        ) from error


def memory(cutout: Cutout) -> int:
    """Bytes that a process which cuts out may need; to be asked when `get_ready` has been.

    Measured with networks of their shapes: U²-Net (176 MB) 0.75 GB, one like IS-Net 1.25 GB.
    """
    file = _file(_sessions(), cutout)
    return max(3 << 29, 6 * file.stat().st_size if file else 0)


def get_ready(cutout: Cutout, tell: Callable[[str], None]) -> None:
    """Make sure that `subject` will work: fetch the model where it is not here yet, checked by its digest; load it.

    Raises DreamctlError where the extra is missing, ProviderError where the model cannot be fetched, InvalidInput where
    it is not one that cuts out.
    """
    sessions = _sessions()
    if cutout.file is None and _file(sessions, cutout) is None:
        _fetch(sessions[cutout.model], cutout.model, tell)
    session = _session(cutout)
    if cutout.file is None:
        return
    try:
        _answer(session, Image.linear_gradient("L").convert("RGB"))
    except Exception as error:  # whatever a foreign model's answer does to numpy
        raise _not_a_model(cutout, f"gives no mask ({_first_line(error)})") from error


def subject(picture: Image.Image, cutout: Cutout) -> Image.Image:
    """Where the subject of an upright RGB picture is: L, of its size, white on the subject; black all over where the
    model sees none, white all over where it sees nothing else.

    Raises UnusablePicture where the model fails on this picture, and what `get_ready` raises where it was not called.
    """
    session = _session(cutout)
    try:
        mask, said = _answer(session, picture)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise UnusablePicture(
            f"cannot be cut out ({_first_line(error)})", hint="leave it out, or name another --cutout-model"
        ) from error
    if said.max() < _SURE or said.min() > _SURE:
        return Image.new("L", picture.size, 255 * bool(said.min() > _SURE))
    return mask


def _answer(session: Any, picture: Image.Image) -> tuple[Image.Image, Any]:
    """rembg's mask, and the array that it was made of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, where the answer is the same all over
        mask: Image.Image = session.predict(picture)[0]
    return mask, session.inner_session.said


class _Listening:
    """An onnxruntime session that keeps its last answer. rembg stretches every answer from black to white, so that a
    picture without any subject looks as if it had one."""

    def __init__(self, session: Any) -> None:
        self.said: Any = None
        self.get_inputs = session.get_inputs
        self._session = session

    def run(self, names: Any, feed: Any) -> Any:
        answers = self._session.run(names, feed)
        self.said = answers[0][:, 0]
        return answers


def _sessions() -> Mapping[str, Any]:
    """rembg's classes by model name. Raises DreamctlError where rembg is not installed."""
    # Importing it compiles functions for the edges of hair, which are not asked for: half a minute at the first time.
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    try:
        import onnxruntime  # first: without it, importing rembg ends the program
        from rembg.sessions import sessions

        del onnxruntime
    except ImportError as error:
        raise DreamctlError(
            f"--remove-background needs the package {(error.name or 'rembg').partition('.')[0]!r}",
            field="--remove-background",
            hint='install it: pip install "dreamctl[cutout]"',
        ) from error
    return dict(sessions)


def _file(sessions: Mapping[str, Any], cutout: Cutout) -> Path | None:
    """Where the model lies: here, or in one of rembg's folders, which other programs share."""
    if cutout.file:
        return cutout.file
    found = sessions[cutout.model].resolve_existing(f"{cutout.model}.onnx")
    return Path(found) if found else None


def _fetch(known: Any, model: str, tell: Callable[[str], None]) -> None:
    target = Path(known.model_dir()) / f"{model}.onnx"
    by_hand = f"bring it by hand from {_RELEASE} to {target}, or name a file: --cutout-model FILE.onnx"
    tell(f"fetching the model {model} into {target.parent}")
    import requests  # pooch asks through it

    try:
        with _quiet_off_a_terminal():
            known.download_models()
    except (OSError, ValueError) as error:  # the network's and the disk's errors; ValueError: another digest
        if isinstance(error, OSError) and (way := os_hint(error)):
            raise DreamctlError(f"{error.filename or target.parent}: {os_reason(error)}", hint=way) from error
        why = "its host cannot be reached" if isinstance(error, requests.ConnectionError) else _first_line(error)
        raise ProviderError(
            f"the model {model} could not be fetched: {why}", field="--cutout-model", hint=by_hand
        ) from error


@contextlib.contextmanager
def _quiet_off_a_terminal() -> Iterator[None]:
    """rembg's downloader writes its log and draws its bar on stderr, whoever reads that."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # a logger of its own, which logging.getLogger does not know
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        yield


@functools.lru_cache(maxsize=1)
def _session(cutout: Cutout) -> Any:
    sessions = _sessions()
    file = _file(sessions, cutout)
    if file is None:
        raise NotFound(f"the model {cutout.model} is gone", field="--cutout-model", hint="run the same command again")
    if cutout.file is None:
        return _opened(sessions[cutout.model], cutout, file)
    session = _opened(sessions[_KINDS[320]], cutout, file)
    shape = session.inner_session.get_inputs()[0].shape
    side = shape[-1]
    if len(shape) != 4 or shape[1] != 3 or shape[-2] != side or side not in _KINDS:
        sides = " or ".join(f"{side}×{side}" for side in _KINDS)
        raise _not_a_model(cutout, f"takes {list(shape)}, not one picture of 3 channels and {sides} pixels")
    return session if _KINDS[side] == _KINDS[320] else _opened(sessions[_KINDS[side]], cutout, file)


def _opened(known: Any, cutout: Cutout, file: Path) -> Any:
    """A session of rembg's class `known` on `file`, wherever that lies; on the CPU, so that all computers cut alike."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # which keeps what one picture took for the next: up to twice the memory
    if multiprocessing.parent_process() is not None:  # each core has a worker of its own
        options.intra_op_num_threads = 1
    here = type("Here", (known,), {"download_models": classmethod(lambda cls, *args, **kwargs: str(file))})
    try:
        session = here(cutout.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        hint = "name another file" if cutout.file else f"remove {file}, and it is fetched again"
        raise InvalidInput(
            f"{file} cannot be loaded: {_first_line(error)}", field="--cutout-model", hint=hint
        ) from error
    session.inner_session = _Listening(session.inner_session)
    return session


def _not_a_model(cutout: Cutout, why: str) -> InvalidInput:
    return InvalidInput(
        f"{cutout.file} {why}", field="--cutout-model", hint="a model like U²-Net or IS-Net is needed, as .onnx"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
