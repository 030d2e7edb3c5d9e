"""A large file to S3 in parts, several at a time: begun, gone on with after a kill, ended as a whole or removed.

Every part is signed with its own digest or carries a checksum, so that the service refuses a damaged one; the digest of
the whole is computed on the way, and nothing becomes visible where it is not the expected one.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dreamctl.errors import DreamctlError, ProviderError
from dreamctl.storage.base import Denied, Progress, Ticket
from dreamctl.storage.patience import Patience, patiently, within
from dreamctl.storage.s3_crew import Ask, Crew, Part
from dreamctl.storage.s3_errors import NoSuchUpload
from dreamctl.storage.slices import Source, Unreadable

LEAST_PART = 5 << 20  # what S3 allows; the last one may be smaller
_USUAL_PARTS, _MOST_PART = 64, 16 << 20
_MOST_PARTS = 10_000  # what S3 allows
_MIB = 1 << 20
_REMOVE_SECONDS = 6.0
_CLOCKS_APART = 300.0  # seconds between this computer's clock and the service's, which would refuse much more


def part_bytes(size: int) -> int:
    """How large the parts of a file are: about 64 of them, between 5 and 16 MiB, larger where they would be too many.

    A cut connection costs a part, so those of files below 320 MiB are as small as they may be: on a line that is cut
    every 3 MB, 16 MiB hardly ever get through. Large parts cost the service and both computers less.
    """
    wanted = min(max(-(-size // _USUAL_PARTS), LEAST_PART), _MOST_PART)
    wanted = max(wanted, -(-size // _MOST_PARTS))
    return -(-wanted // _MIB) * _MIB


def send(
    ask: Ask,
    source: Source,
    about: Mapping[str, Any],
    is_stored: Callable[[], bool],
    ticket: Ticket | None,
    progress: Progress | None,
) -> None:
    """Upload `source`, whose digest must be its `sha256`; `about`: headers and metadata of the object.

    `is_stored` looks whether the object is there: the answer that the upload has ended may have been lost. Raises
    Unreadable where the file is another; then, and on Ctrl-C and SIGTERM, nothing is left at the service. After other
    errors the ticket's state can go on.
    """
    for _ in range(2):
        began = time.time()
        upload = str(((ticket and ticket.state) or {}).get("upload_id", ""))
        try:
            upload, size, there = _taken_up(ask, source, ticket) or _begun(ask, source, about, ticket)
            parts = _send_parts(ask, upload, list(_parts(source.size, size)), there, source, progress)
            _complete(ask, upload, parts)
        except NoSuchUpload:  # somebody cleaned up meanwhile, or it has ended already
            if is_stored():
                return
            if ticket:
                ticket.keep({})
            continue
        except BaseException as error:
            forgotten = upload and (ticket is None or isinstance(error, Unreadable))
            if forgotten or isinstance(error, KeyboardInterrupt):
                with contextlib.suppress(DreamctlError):  # the first trouble is told
                    remove(ask, upload, began)
            raise
        return
    raise DreamctlError("the upload was removed by somebody else, twice", hint="run the same command again")


def remove(ask: Ask, upload: str, began: float) -> bool:
    """Remove the parts of an upload; where its id was never learnt, of those of this very key since the time `began`.

    False where there was none. Raises ProviderError soon where nobody answers: it is for people who want to leave.
    """

    def act() -> bool:
        patience = Patience(_REMOVE_SECONDS)
        uploads = [upload] if upload else _of_key(ask, patience, began)
        return sum(_aborted(ask, each, patience) for each in uploads) > 0

    try:
        return within(_REMOVE_SECONDS, act)
    except TimeoutError:
        raise ProviderError("what was sent could not be removed: there was no answer", hint="try it again") from None


def _aborted(ask: Ask, upload: str, patience: Patience) -> bool:
    """A part in flight may land after the end, so it is looked at again."""
    found = False
    with contextlib.suppress(NoSuchUpload):
        for _ in range(5):
            patiently(lambda: ask("abort_multipart_upload", UploadId=upload), patience)
            found = True
            with contextlib.suppress(Denied):
                patiently(lambda: ask("list_parts", UploadId=upload, MaxParts=1), patience)
    return found


def _of_key(ask: Ask, patience: Patience, began: float) -> list[str]:
    """The ids of the object's unfinished uploads since then, oldest first; who may not look finds none."""
    try:
        found = patiently(lambda: ask("list_multipart_uploads"), patience).get("Uploads", ())
    except Denied:
        return []
    young = [item for item in found if item["Initiated"].timestamp() > began - _CLOCKS_APART]
    return [str(item["UploadId"]) for item in sorted(young, key=lambda item: str(item["Initiated"]))]


def _begun(
    ask: Ask, source: Source, about: Mapping[str, Any], ticket: Ticket | None
) -> tuple[str, int, dict[int, str]]:
    size = part_bytes(source.size)
    state = {"bytes": source.size, "sha256": source.sha256, "part_bytes": size, "begun": time.time()}
    if ticket:
        ticket.keep(state)  # a kill between the next two lines leaves an upload that is found by its key
    try:
        upload = str(patiently(lambda: ask("create_multipart_upload", **about), Patience())["UploadId"])
    except Denied:
        if ticket:
            ticket.keep({})  # nothing was begun, nor will be
        raise
    if ticket:
        ticket.keep({**state, "upload_id": upload})
    return upload, size, {}


def _taken_up(ask: Ask, source: Source, ticket: Ticket | None) -> tuple[str, int, dict[int, str]] | None:
    """The upload that the ticket remembers, its part size, and the ETags of the parts that are there."""
    state = (ticket.state if ticket else None) or {}
    if (state.get("bytes"), state.get("sha256")) != (source.size, source.sha256):
        if state.get("upload_id"):  # of another file; nobody will remember it
            with contextlib.suppress(DreamctlError):
                remove(ask, state["upload_id"], 0.0)
        return None
    there: dict[int, str] = {}
    try:
        upload = state.get("upload_id") or next(reversed(_of_key(ask, Patience(), state.get("begun", 0.0))), "")
        if upload:
            with contextlib.suppress(Denied):  # who may not look sends all of it again
                there = dict(_listed(ask, upload))
    except NoSuchUpload:
        return None
    return (upload, int(state["part_bytes"]), there) if upload else None


def _listed(ask: Ask, upload: str) -> Iterator[tuple[int, str]]:
    parameters: dict[str, Any] = {"UploadId": upload}
    while True:
        page = patiently(lambda: ask("list_parts", **parameters), Patience())
        for part in page.get("Parts", ()):
            yield int(part["PartNumber"]), str(part["ETag"]).strip('"')
        if not page.get("IsTruncated"):
            return
        parameters["PartNumberMarker"] = int(page["NextPartNumberMarker"])


def _parts(total: int, size: int) -> Iterator[Part]:
    for number, start in enumerate(range(0, total, size), 1):
        yield Part(number, start, min(size, total - start))


def _send_parts(
    ask: Ask,
    upload: str,
    parts: list[Part],
    there: Mapping[int, str],
    source: Source,
    progress: Progress | None,
) -> dict[int, str]:
    """Send what is not there; the ETag of every part."""
    crew = Crew(ask, upload, source, progress)
    digest = hashlib.sha256()
    try:
        for part in parts:
            etag = hashlib.md5(usedforsecurity=False)
            hashes = ([] if source.trusted else [digest]) + ([etag] if part.number in there else [])
            for start in range(part.start, part.start + part.size, _MIB) if hashes else ():
                piece = source.read(start, min(_MIB, part.start + part.size - start))
                for each in hashes:
                    each.update(piece)
            if etag.hexdigest() == there.get(part.number):
                crew.had(part, there[part.number])
            else:
                crew.give(part)
        etags = crew.finish()
    finally:
        crew.dismiss()
    source.check()
    if not source.trusted and digest.hexdigest() != source.sha256:
        raise source.changed()
    return etags


def _complete(ask: Ask, upload: str, etags: Mapping[int, str]) -> None:
    listed = [{"PartNumber": number, "ETag": f'"{etags[number]}"'} for number in sorted(etags)]

    def once() -> object:
        return ask("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": listed})

    patiently(once, Patience())
