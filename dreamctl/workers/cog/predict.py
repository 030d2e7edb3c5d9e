"""What was trained at Replicate as a model there: draws pictures from the outcome that `train.py` made."""

# No postponed annotations: Cog reads those of `run` as types.
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Optional

from cog import BaseRunner, Input, Path

from dreamctl.domain.concept import Concept
from dreamctl.domain.prompts import expand
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.run import ModelFile
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.fetch import Patience, fetch
from dreamctl.files import read_json
from dreamctl.recipes import default_for, resolve
from dreamctl.urls import is_url, public_name
from dreamctl.wire import FetchFailed, Limits
from dreamctl.workers.errands import ALLOW_PRIVATE

if TYPE_CHECKING:
    from dreamctl.generation.pipeline import Pipe

_LARGEST = 64 << 30
_SECONDS = 3600.0
_MAX_SEED = 2**32


@dataclass(frozen=True)
class Taught:
    """An opened model: what it knows, and how it draws where a request does not say it."""

    pipe: "Pipe"
    concepts: Sequence[Concept]
    recipe: Recipe


class Runner(BaseRunner):  # type: ignore[misc]
    """Replicate runs the trainer's image with COG_WEIGHTS, the outcome's URL; the image alone knows nothing."""

    def setup(self, weights: Optional[Path] = None) -> None:  # noqa: UP045 - the oldest form, known to every Cog
        self._folder = tempfile.TemporaryDirectory(prefix="dreamctl-", ignore_cleanup_errors=True)
        self._opened: dict[str, Taught] = {}
        self._own = str(weights) if weights else ""
        if self._own:
            self._taught(self._own)

    def run(
        self,
        prompt: str = Input(description="What to draw, such as: a photo of sks person on a beach"),
        negative_prompt: str = Input(description="What not to draw", default=""),
        num_outputs: int = Input(description="How many pictures", ge=1, le=10, default=1),
        width: int = Input(description="Pixels; 0: as it was trained", ge=0, le=4096, default=0),
        height: int = Input(description="Pixels; 0: as it was trained", ge=0, le=4096, default=0),
        num_inference_steps: int = Input(description="0: as the base model does best", ge=0, le=500, default=0),
        guidance_scale: float = Input(description="-1: as the base model does best", ge=-1, le=30, default=-1.0),
        seed: int = Input(description="The same seed, the same picture; -1: any", ge=-1, default=-1),
        replicate_weights: Optional[Path] = Input(  # noqa: UP045
            description="What another training made, instead of this model's own", default=None
        ),
    ) -> list[Path]:
        """One picture for each seed, counting up from the first."""
        try:
            place = str(replicate_weights) if replicate_weights else self._own
            if not place:
                raise NotFound("this image is a trainer without weights", hint="run a model that was trained with it")
            taught = self._taught(place)
            first = secrets.randbelow(_MAX_SEED) if seed < 0 else seed
            side, sampling = taught.recipe.training.resolution, taught.recipe.sampling
            made = taught.pipe.make(
                expand(prompt, taught.concepts),
                negative_prompt,
                steps=num_inference_steps or sampling.steps,
                guidance=sampling.guidance if guidance_scale < 0 else guidance_scale,
                width=width or side,
                height=height or side,
                seeds=[(first + number) % _MAX_SEED for number in range(num_outputs)],
            )
            return [self._saved(image) for image in made]
        except DreamctlError as error:
            raise RuntimeError(error.message + (f"\n{error.hint}" if error.hint else "")) from None

    def _saved(self, image: Any) -> Path:
        with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:  # Cog takes it after this returns
            image.save(file)
        return Path(file.name)

    def _taught(self, place: str) -> Taught:
        """The model whose archive is at a URL or path. The last one stays open."""
        if place not in self._opened:
            self._opened.clear()
            with tempfile.TemporaryDirectory(dir=self._folder.name) as name:
                archive = Path(name) / "outcome.zip"
                if is_url(place):
                    _fetch(place, archive)
                else:
                    shutil.copyfile(place, archive)
                self._opened[place] = _open(archive, Path(name) / "model")
        return self._opened[place]


def _fetch(url: str, target: Path) -> None:
    patience = Patience(Limits(bytes=_LARGEST, total=_SECONDS))
    try:
        fetch(url, target, allow_private=os.environ.get(ALLOW_PRIVATE) == "1", patience=patience)
    except FetchFailed as error:
        raise DreamctlError(f"the weights at {public_name(url)} {error.message}", hint=error.hint) from None


def _open(archive: Path, folder: Path) -> Taught:
    """Load the base that the model in the archive was taught on, and the model over it."""
    from dreamctl.generation.pipeline import open_pipeline

    _unpack_model(archive, folder)
    model = ModelFile.parse(read_json(folder / "model.json"), "model.json")
    pipe = open_pipeline(Base(source=model.base, digest=model.base_digest), folder)
    return Taught(pipe, model.concepts, resolve(default_for(model.base, model.family)))


def _unpack_model(archive: Path, folder: Path) -> None:
    """Write the archive's `model/` as `folder`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                path = PurePosixPath(entry.filename)
                if path.parts[:1] != ("model",) or entry.is_dir():
                    continue
                if ".." in path.parts or entry.compress_type != zipfile.ZIP_STORED:  # ours are no bombs
                    raise InvalidInput(f"the weights hold {entry.filename!r}, which dreamctl does not write")
                target = folder.joinpath(*path.parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, EOFError, RuntimeError, FileExistsError) as error:
        raise DreamctlError(f"the weights are no archive of dreamctl's: {error}") from None
    if not (folder / "model.json").is_file():
        raise NotFound("the weights hold no model of dreamctl's: model/model.json is missing")
