"""RunPod's worker: `python -m dreamctl.workers.runpod_worker` takes errands from an endpoint's queue, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from dreamctl.domain.errand import Abilities, Answer, News
from dreamctl.errors import DreamctlError
from dreamctl.http import RedactingFormatter, printable, quiet_loggers, redact
from dreamctl.workers.errands import carry_out, read_errand

VOLUME = Path("/runpod-volume")
"""Where RunPod mounts an endpoint's network volume: models that were fetched once stay there."""

_TELLING_SECONDS = 60.0


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """The answer to a job, or `{"error": TEXT}`: a text, since RunPod takes other errors for success.

    When RunPod stops the job it cancels this task; the training has ended when that is through.
    """
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(answer, job, stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise


def answer(job: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    """The handler's answer, made in a thread of its own."""

    def tell(news: News) -> None:
        _tell(job, news)

    try:
        keys = job.get("s3Config")
        errand = read_errand(job.get("input"))
        told: Answer | Abilities = carry_out(
            errand, str(job["id"]), tell, keys if isinstance(keys, dict) else None, stop
        )
        return told.plain()
    except DreamctlError as error:
        said = redact(error.message + (f"\n{error.hint}" if error.hint else ""))
    except Exception as error:  # a bug of ours; its traceback could show what is secret
        said = f"unexpected {type(error).__name__}: {printable(str(error))}"
    print(f"error: {said}", file=sys.stderr, flush=True)
    return {"error": said}


def _tell(job: dict[str, Any], news: News) -> None:
    """Show the news in the job's status, and come back when RunPod has them: later they would undo the answer.

    The SDK sends them in a thread that it does not hand out (runpod-python issue 250).
    """
    import runpod

    before = set(threading.enumerate())
    runpod.serverless.progress_update(job, news.plain())
    for thread in set(threading.enumerate()) - before:
        if thread.daemon:  # those of asyncio's pools are not, and do not end
            thread.join(_TELLING_SECONDS)


def main() -> None:
    """Take jobs until RunPod ends this process."""
    # Unless the endpoint says otherwise. At the SDK's own level, DEBUG, answers are printed, with the URLs in them.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", os.environ.get("RUNPOD_DEBUG_LEVEL", "INFO"))
    _keep_models()
    import runpod  # which lets every library log to the terminal

    for output in logging.root.handlers:
        output.setFormatter(RedactingFormatter(logging.BASIC_FORMAT))
    quiet_loggers("httpx", "httpcore", "botocore", "boto3", "urllib3", level=logging.WARNING)
    runpod.serverless.start({"handler": handler})


def _keep_models() -> None:
    """Fetch models to the endpoint's volume, where there is one that may be written to."""
    if "HF_HOME" in os.environ or not VOLUME.is_dir():
        return
    folder = VOLUME / "huggingface"
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
    if os.access(folder, os.W_OK):
        os.environ["HF_HOME"] = str(folder)


if __name__ == "__main__":
    main()
