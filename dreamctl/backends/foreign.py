"""What another's trainer made, as a run's model: unpacked with care, sorted by content. No pickle is opened."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from dreamctl.domain.run import ModelFile, Weights, model_digest, newest, unpinned
from dreamctl.errors import DreamctlError
from dreamctl.files import explained, replacing_folder, sha256_file, write_json
from dreamctl.http import printable
from dreamctl.runfolder import RunFolder
from dreamctl.weights import check_safetensors, sort_of, tensor_names

ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # that of dreamctl.families.base
EXTRA = "extra"
"""The folder inside `model/` of what came along: captions, configuration."""
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")
"""Names of components whose weights a training may change."""
Format = Literal["peft", "diffusers", "checkpoint", "pickle"]
"""`checkpoint`: whole weights in one file, which nothing here lays over a base."""

_PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
_PIECE = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are unpacked in one go, however much comes out
_DEEPEST = 32  # folders in folders; whoever removes them goes down one call for each
_LONGEST_NAME = 200  # bytes; file systems take 255, and names are lengthened while they are written
_MOST_STEPS = 1 << 53


@dataclass(frozen=True)
class Limits:
    """The most that is unpacked: entries, bytes in all, and so many times the archive's size (but `free` at least)."""

    entries: int = 20_000
    bytes: int = 256 << 30
    ratio: int = 20
    free: int = 256 << 20

    def most(self, size: int) -> int:
        return min(self.bytes, max(self.free, self.ratio * size))


def take_foreign(file: Path, run: RunFolder, limits: Limits | None = None) -> None:
    """Make the run's `model/` of an archive (zip, tar, tar.gz) or of one file of weights, wholly or not at all.

    An adapter becomes one file that is loaded like our own; components of a pipeline keep their folders; pickles and
    whole checkpoints are kept as they are. Raises DreamctlError where nothing of that is there, where safetensors are
    damaged, and for archives that would write elsewhere or unpack to far too much. What a kill left is removed first,
    so whoever calls holds the run's `remote.lock`.
    """
    for left in run.path.glob(f".{run.model.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    sort = sort_of(file)
    with replacing_folder(run.model) as folder:
        extra = folder / EXTRA
        if sort in ("zip", "tar", "gzip"):
            _unpack(file, sort, extra, (limits or Limits()).most(file.stat().st_size), (limits or Limits()).entries)
        else:
            extra.mkdir()
            _copy(file, extra / {"safetensors": "weights.safetensors", "pickle": "weights.ckpt"}.get(sort, "file"))
        kind = _arranged(folder, extra)
        if not any(extra.iterdir()):
            extra.rmdir()
        write_json(folder / "model.json", _described(run, folder, kind).plain())


# sorting


def _arranged(folder: Path, extra: Path) -> Format:
    """Put the weights where the model's readers look for them; returns what they are."""
    files = sorted(path for path in extra.rglob("*") if path.is_file())
    checked = [path for path in files if path.suffix == ".safetensors" or sort_of(path) == "safetensors"]
    for path in checked:
        check_safetensors(path, path.relative_to(extra).as_posix())
    pickles = [path for path in files if path.suffix in _PICKLES or sort_of(path) == "pickle"]
    parts = _components(extra)
    if parts and all(any(part.glob("*.safetensors")) for part in parts):
        for part in parts:
            part.rename(folder / part.name)
        _prune(extra)
        return "diffusers"
    if parts and any(pickles):
        return "pickle"  # some of it cannot be opened, and the rest would be half a model
    adapters = [path for path in checked if path.suffix == ".safetensors" and _is_adapter(path)]
    if adapters:
        # of checkpoints with a number in their names and the last one without, the last one
        chosen = min(adapters, key=lambda path: (path.name != ADAPTER_FILE, len(path.name), path.as_posix()))
        chosen.rename(folder / ADAPTER_FILE)
        _prune(extra)
        return "peft"
    whole = [path for path in checked if path.suffix == ".safetensors"]
    if whole or pickles:
        chosen = max(whole or pickles, key=lambda path: path.stat().st_size)
        chosen.rename(folder / chosen.name)
        _prune(extra)
        return "checkpoint" if whole else "pickle"
    names = [printable(path.relative_to(extra).as_posix()) for path in files]
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    raise DreamctlError(f"what came holds no weights: {shown or 'it is empty'}", hint="look at the trainer's log")


def _components(extra: Path) -> list[Path]:
    """The folders of a saved pipeline that hold weights; of several pipelines those of the outermost."""
    found = [path.parent for path in extra.rglob("config.json") if path.parent.name in COMPONENTS]
    found = [path for path in found if any(item.suffix in (".safetensors", *_PICKLES) for item in path.iterdir())]
    depth = min((len(path.parts) for path in found), default=0)
    tops = {path.parent for path in found if len(path.parts) == depth}
    return [path for path in found if path.parent == min(tops)]


def _is_adapter(path: Path) -> bool:
    """Whether the tensors' names are those of low-rank matrices, in anybody's spelling."""
    return any("lora" in name.lower() for name in tensor_names(path, path.name))


def _prune(folder: Path) -> None:
    """Remove the folders that hold nothing any more."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _described(run: RunFolder, folder: Path, kind: Format) -> ModelFile:
    recipe, job, step = run.recipe(), run.remote(), newest(run.events(), "step")
    asked = job.facts.get("steps") if job else None
    files = tuple(
        Weights(file=path.relative_to(folder).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    return ModelFile(
        digest=model_digest(files),
        family=recipe.family,
        format=kind,
        base=recipe.base.source,
        base_digest=recipe.base.digest or unpinned(recipe.base.source),
        steps=asked if type(asked) is int and 0 <= asked <= _MOST_STEPS else recipe.training.steps,
        final_loss=float(step.fields["loss"]) if step else 0.0,
        concepts=(run.concept(),),
        files=files,
        parent=run.record().parent,
    )


# unpacking


@dataclass
class _Left:
    """What may still be unpacked."""

    bytes: int
    entries: int

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise DreamctlError("the archive unpacks to far more than its size (a bomb?), and was not kept")

    def entry(self) -> None:
        self.entries -= 1
        if self.entries < 0:
            raise DreamctlError("the archive holds far too many entries, and was not kept")


def _unpack(archive: Path, sort: str, folder: Path, most: int, entries: int) -> None:
    """Write an archive's files below `folder`. Anything but files and folders is refused, and the archive with it."""
    left = _Left(most, entries)
    folder.mkdir()
    try:
        with open(archive, "rb") as opened:
            for name, source in _zipped(opened, left) if sort == "zip" else _tarred(opened, sort, left):
                target = folder / _safe(name)
                _make(target.parent)
                _write(source, target, left)
    except (DreamctlError, MemoryError):
        raise
    except FileExistsError as error:
        name = Path(error.filename or "").name
        raise DreamctlError(f"the archive holds {printable(name)} twice, and was not kept") from None
    except OSError as error:
        if error.filename:
            raise  # of the disk
        raise DreamctlError(f"the archive is damaged: {printable(str(error))[:120]}") from None
    except Exception as error:  # these libraries let out whatever a broken archive makes them stumble over
        raise DreamctlError(f"the archive is damaged: {printable(str(error))[:120]}") from None


def _zipped(opened: IO[bytes], left: _Left) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(opened) as archive:
        for entry in archive.infolist():
            left.entry()
            if entry.filename.endswith("/"):
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1 or entry.compress_type not in _METHODS:
                raise DreamctlError(
                    f"the archive's {printable(entry.filename)} is a link, encrypted, or of an odd kind"
                )
            with archive.open(entry) as source:
                yield entry.filename, source


def _tarred(opened: IO[bytes], sort: str, left: _Left) -> Iterator[tuple[str, IO[bytes]]]:
    plain: Any = gzip.GzipFile(fileobj=opened) if sort == "gzip" else opened
    with tarfile.open(fileobj=_Modest(plain), mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            left.entry()
            if member.isdir():
                continue
            source = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if source is None:
                raise DreamctlError(f"the archive's {printable(member.name)} is a link, or of an odd kind")
            with source:
                yield member.name, source


class _Modest:
    """A stream that gives no more at once than a header needs: an archive may call its headers gigabytes long."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= 4 * _PIECE:
            raise DreamctlError("the archive's headers are far too long, and it was not kept")
        return bytes(self._stream.read(size))


def _safe(name: str) -> PurePosixPath:
    """A name inside of an archive. Raises DreamctlError for one that leaves it."""
    path, shown = PurePosixPath(name), printable(name)[:120]
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or ":" in name:
        raise DreamctlError(f"the archive's {shown!r} would be written elsewhere; the archive was not kept")
    if not name.isprintable():
        raise DreamctlError(f"the archive's {shown!r} has an odd name; the archive was not kept")
    if len(path.parts) > _DEEPEST or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise DreamctlError(
            f"the archive's {shown!r} has a name that is too long or too deep; the archive was not kept"
        )
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DreamctlError(f"the archive holds {printable(folder.name)} as a file and as a folder") from None


def _copy(file: Path, target: Path) -> None:
    with open(file, "rb") as source:
        _write(source, target, _Left(file.stat().st_size, 1))


def _write(source: IO[bytes], target: Path, left: _Left) -> None:
    with open(target, "xb") as file:
        for piece in _pieces(source):
            left.take(len(piece))
            try:
                file.write(piece)
            except OSError as error:
                raise explained(error, target) from error


def _pieces(source: IO[bytes]) -> Iterable[bytes]:
    while piece := source.read(_PIECE):
        yield piece
