"""Replicate's trainer: a zip of pictures and an errand go in, the archive of the outcome comes out.

Its log tells news: lines that begin with `dreamctl-news`, and hold the events that are new.
"""

# No postponed annotations: Cog reads those of `train` as types.
import json
import os
import shutil
import tempfile
import threading

from cog import BaseModel, Input, Path

from dreamctl.domain.errand import News
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.http import redact
from dreamctl.workers.errands import complete, read_errand, taught

NEWS = "dreamctl-news"


class TrainingOutput(BaseModel):  # type: ignore[misc]
    """What Replicate keeps: the archive that dreamctl fetches, and that `predict.py` draws with."""

    weights: Path


def train(
    input_images: Path = Input(description="The zip archive of a dataset, as `dreamctl train` packs it"),
    dreamctl: str = Input(description="What to train, as `dreamctl train --backend replicate` writes it (JSON)"),
) -> TrainingOutput:
    """Train one run. Cog cancels by an exception, which ends the trainer on its way out."""
    with tempfile.TemporaryDirectory(prefix="dreamctl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            errand = read_errand(_table(dreamctl))
            if errand.op != "train":
                raise InvalidInput(f"op = {errand.op}: Replicate trains only", field="op")
            made = taught(complete(errand), input_images, folder, _Teller().tell, threading.Event())
        except DreamctlError as error:
            # One text: Replicate shows no more than that, and no traceback helps the user.
            raise RuntimeError(redact(error.message + (f"\n{error.hint}" if error.hint else ""))) from None
        descriptor, kept = tempfile.mkstemp(prefix="dreamctl-", suffix=".zip")  # Cog takes it after this returns
        os.close(descriptor)
        shutil.move(made, kept)
    return TrainingOutput(weights=Path(kept))


def _table(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidInput("the input `dreamctl` is not JSON", field="dreamctl") from None


class _Teller:
    """Prints each event once: a log grows, and all of it can be read."""

    def __init__(self) -> None:
        self._seen = 0

    def tell(self, news: News) -> None:
        fresh = tuple(event for event in news.events if event["seq"] > self._seen)
        if fresh:
            self._seen = fresh[-1]["seq"]
            print(NEWS, json.dumps(News(events=fresh).plain(), ensure_ascii=False), flush=True)
