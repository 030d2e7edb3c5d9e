"""The contract `dream-booth-v1` with an endpoint of RunPod: RunPod's own DreamBooth worker of 2023."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from dreamctl.backends import dream_booth
from dreamctl.backends import runpod_bucket as bucket
from dreamctl.backends.base import OwnBase, Support, Wishes
from dreamctl.backends.provider import Order
from dreamctl.backends.runpod_contract import Carries, ended, kept_until, known_times, lost
from dreamctl.backends.runpod_endpoint import Endpoint, Status
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import ENDED, RemoteJob, Report, Result
from dreamctl.errors import InvalidInput
from dreamctl.runfolder import RunFolder

_NEEDS_BUCKET = "dream-booth-v1 leaves its model in an S3 bucket and nowhere else"


class DreamBooth:
    """See `dreamctl.backends.runpod_contract.Contract`."""

    carrier = False
    own_base: OwnBase | None = OwnBase(recipe="sd15-dreambooth", source="", family="sd15")

    def __init__(self, support: Support) -> None:
        self._support = support

    def problems(self, recipe: Recipe) -> list[str]:
        found = dream_booth.problems(recipe)
        if not _bucket_of(self._support.settings.storage):
            found.append(f"{_NEEDS_BUCKET}: `dreamctl config set storage s3://bucket/folder`")
        return found

    def offer(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> tuple[Carries, list[str]]:
        dream_booth.parse_inputs(wishes.inputs)
        lends = f"the request lends the worker the keys of {self._support.settings.storage} (s3Config)"
        return "url", [*dream_booth.notes(recipe), lends]

    def ready(self, endpoint: Endpoint, recipe: Recipe) -> None:
        """It cannot be asked what it accepts."""

    def input(self, order: Order, endpoint: Endpoint) -> dict[str, Any]:
        if not _bucket_of(order.storage):
            raise InvalidInput(_NEEDS_BUCKET, field="storage", hint="`dreamctl config set storage s3://bucket/folder`")
        if not order.parcel.url:
            raise InvalidInput("dream-booth-v1 fetches the dataset from a URL, and it has none", field="--data-url")
        pictures = order.run.data.manifest().pictures
        for picture in pictures:
            if PurePosixPath(picture.file).suffix.lower() not in dream_booth.SUFFIXES:
                raise InvalidInput(
                    f"{picture.file}: dream-booth-v1 reads {', '.join(sorted(dream_booth.SUFFIXES))} only",
                    field="--dataset",
                    hint="`dreamctl prepare` writes JPEGs",
                )
        run, inputs = order.run, dream_booth.parse_inputs(order.wishes.inputs)
        return {"train": dream_booth.train_input(run.recipe(), run.concept(), len(pictures), order.parcel.url, inputs)}

    def facts(self, storage: str | None) -> dict[str, Any]:
        root = _bucket_of(storage)
        return {"result_storage": root} if root else {}

    def find(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint) -> str | None:
        raise lost(run, job)

    def report(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint, status: Status | None) -> Report:
        if status is not None and status.told not in ENDED:
            started, seconds = known_times(job, status)
            message = f"RunPod calls the job's state {status.state}" if status.unknown else ""
            return Report(status.told, message, started=started, seconds=seconds)
        if status is not None and status.told != "succeeded":
            return ended(status.told, status)
        url = _checkpoint_url(status)
        result = Result("foreign", url=url) if url.startswith(("https://", "http://")) else self._left(job)
        if result is None:
            return ended("succeeded", status, _without_weights(url)) if status else ended("expired")
        started, seconds = known_times(job, status)
        until = kept_until(job, status) if result.url else None  # what lies in the bucket stays there
        return Report("succeeded", started=started, seconds=seconds, result=result, keep_until=until)

    def _left(self, job: RemoteJob) -> Result | None:
        """The checkpoint that the worker put at the bucket's root, below no prefix, under the job's id."""
        url = job.facts.get("result_storage")
        if not (isinstance(url, str) and _bucket_of(url) and job.id):
            return None
        key = f"{job.id}.ckpt"
        stored = bucket.opened(self._support, url, job.access).head(key)
        return Result("foreign", key=key, bytes=stored.bytes) if stored else None

    def accomplice(self, job: RemoteJob, endpoint: Endpoint) -> str | None:
        return None


def _bucket_of(url: str | None) -> str | None:
    """The bucket's own URL, without a prefix; None where it is no S3 bucket."""
    scheme, _, rest = (url or "").partition("://")
    name = rest.partition("/")[0]
    return f"s3://{name}" if scheme == "s3" and name else None


def _checkpoint_url(status: Status | None) -> str:
    output = status.output if status else None
    train = output.get("train") if isinstance(output, dict) else None
    url = train.get("checkpoint_url") if isinstance(train, dict) else None
    return url if isinstance(url, str) else ""


def _without_weights(url: str) -> str:
    if url:  # what the SDK answers where it has no keys: a path inside of the worker
        return "the worker could not write to the bucket, so the model is lost with the worker"
    return "RunPod calls the job completed, and it made no model: the worker ends so where its training fails, too"
