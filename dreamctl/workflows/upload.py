"""Put a dataset's archive, or any file, where a trainer can fetch it: one URL; and sign such a URL again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from dreamctl.archive import pack_dataset
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain import quantities
from dreamctl.domain.uploads import Upload
from dreamctl.errors import (
    CredentialsError,
    DreamctlError,
    InvalidInput,
    NotFound,
    ProviderError,
    Signalled,
    signalled_error,
)
from dreamctl.files import Stamp, explained, sha256_file, stamp_of
from dreamctl.runfolder import now
from dreamctl.sources import clean_stem, clean_suffix
from dreamctl.storage.base import Access, Storage, content_key
from dreamctl.workflows.datasets import chosen_dataset, default_folder, folder_at, locked_dataset
from dreamctl.workflows.scratch import scratch
from dreamctl.workflows.tickets import FileTicket, Journey

_LONGEST_SUFFIX = 20  # .safetensors


@dataclass(frozen=True)
class UploadReport:
    """Where it lies, and the URL, a secret unless `public`. `already_there`: it lay there already, nothing was sent."""

    source: Path
    storage: str
    key: str
    sha256: str
    bytes: int
    already_there: bool
    url: str = field(repr=False)
    public: bool
    expires: datetime | None
    note: str


@dataclass(frozen=True)
class Parcel:
    """A file to send, and what it was made of: `content` are a dataset's digests, "" of a file sent as it is."""

    source: Path
    file: Path
    sha256: str
    stamp: Stamp
    content: str

    @property
    def key(self) -> str:
        """By content; equal datasets have equal keys, whatever their folders are called."""
        if self.content:
            return content_key("datasets", self.sha256, "dataset.zip")
        name = clean_stem(self.file.stem) + clean_suffix(self.file.suffix, _LONGEST_SUFFIX)
        return content_key("files", self.sha256, name)


def upload(
    context: Context,
    source: Path | None = None,
    to: str | None = None,
    expires: str | None = None,
    public: bool = False,
    unfinished: FileTicket | None = None,
) -> UploadReport:
    """Pack a dataset (pictures and captions), or take a file as it is, and put it under a key made of its content.

    The same content is not sent twice, and an upload that was interrupted goes on; `unfinished` names one that must.
    Raises InvalidInput where no storage is named, NotFound for a kind of storage, a bucket or a source that does not
    exist, CredentialsError and ProviderError; and where the URL could not live as long as it is to, before anything is
    sent.
    """
    storage = context.storage(to, context.access(unfinished.journey.access) if unfinished else None)
    storage.check_link(lifetime(context, expires, public))  # before anything is packed
    with _parcel(context, source) as parcel:
        return deliver(context, storage, parcel, to, expires, public, unfinished)


def deliver(
    context: Context,
    storage: Storage,
    parcel: Parcel,
    to: str | None = None,
    expires: str | None = None,
    public: bool = False,
    unfinished: FileTicket | None = None,
) -> UploadReport:
    """Put one packed file under its key, unless it lies there already, and sign a URL. Raises as `upload`.

    `storage` is the one that `to` names, or else the settings.
    """
    registry = context.registry  # what cannot be remembered is not sent
    seconds = lifetime(context, expires, public)
    storage.check_link(seconds)
    size, place = parcel.file.stat().st_size, storage.place(parcel.key)
    if unfinished:
        _check_same(unfinished.journey, parcel, place)
    url, access = context.storage_url(to), storage.access
    ticket = FileTicket(
        Journey(str(parcel.source), url, access, parcel.key, place, parcel.sha256, size, expires, public)
    )
    with ticket.held(lambda holder: context.reporter.note(f"waiting for {holder}")):
        ticket.refresh()
        stored = storage.head(parcel.key)
        there = stored is not None and (stored.sha256, stored.bytes) == (parcel.sha256, size)
        if not there:
            _send(context, storage, parcel, size, ticket)
        elif ticket.state is not None:
            storage.abandon(parcel.key, ticket.state)  # somebody else was quicker
        last = registry.last_upload(_name(parcel.source), url)
        if last and last.public and last.key == parcel.key and not public:
            context.reporter.warn("it was uploaded with --public before, and everybody can still read it")
        stamp = "" if parcel.content else _text(parcel.stamp)
        registry.record_upload(
            Upload(
                _name(parcel.source), _name(context.project), url, json.dumps(asdict(access)), parcel.key,
                parcel.sha256, size, parcel.content, stamp, public, now(),
            )
        )  # fmt: skip
        ticket.drop()
    link = storage.link(parcel.key, seconds)
    return UploadReport(
        parcel.source, url, parcel.key, parcel.sha256, size, there, link.url, public, link.expires, link.note
    )


def sign_again(
    context: Context,
    source: Path | None = None,
    to: str | None = None,
    expires: str | None = None,
    public: bool = False,
) -> UploadReport:
    """A new URL of what was uploaded last from this source. Nothing is packed or sent.

    Raises NotFound where nothing was, or where it lies there no more.
    """
    path = source_place(context, source)
    last = context.registry.last_upload(_name(path), context.storage_url(to) if to else None)
    if last is None:
        where = f" to {to}" if to else ""
        raise NotFound(f"{path} was never uploaded{where} from here", field="SOURCE", hint="`dreamctl upload` does it")
    access = context.access() if to else context.access(Access(**json.loads(last.access)))
    storage = context.storage(last.storage, access)
    public = public or (last.public and expires is None)
    if (stored := storage.head(last.key)) is None or stored.sha256 not in ("", last.sha256):
        raise NotFound(f"{last.storage}/{last.key} is not there any more", hint="`dreamctl upload` sends it again")
    if _changed(path, last):
        context.reporter.warn(f"{path} has changed since: the URL gives what was uploaded on {last.uploaded[:10]}")
    link = storage.link(last.key, lifetime(context, expires, public))
    return UploadReport(
        path, last.storage, last.key, last.sha256, last.bytes, True, link.url, public, link.expires, link.note
    )


def check_destination(context: Context, to: str | None, expires: str | None, public: bool) -> None:
    """Whether an upload could be made, for those who do long work before it. Raises as `upload`."""
    storage = context.storage(to)
    storage.check_link(lifetime(context, expires, public))
    storage.head("datasets/none")


def lifetime(context: Context, expires: str | None, public: bool) -> int | None:
    """Seconds that a URL is to live; None for a public one. Raises InvalidInput for what is no length of time."""
    if public:
        return None
    try:
        return quantities.seconds(context.settings.expires if expires is None else expires)
    except ValueError as error:
        raise InvalidInput(f"--expires {expires!r} {error}", field="--expires") from None


def _check_same(journey: Journey, parcel: Parcel, place: str) -> None:
    if journey.sha256 != parcel.sha256:
        raise InvalidInput(
            f"{parcel.source} has changed since its upload was interrupted",
            field="--resume",
            hint="`dreamctl upload` sends it as it is now, `dreamctl upload --clean` removes what was sent",
        )
    if journey.place != place:
        raise InvalidInput(
            f"the upload to {journey.place} would go on at {place}",
            field="--resume",
            hint="check the endpoint, as in AWS_ENDPOINT_URL",
        )


# what is sent


@contextlib.contextmanager
def _parcel(context: Context, source: Path | None) -> Iterator[Parcel]:
    """The file that is to be sent, while the block lasts; a dataset is held alone and packed."""
    path = source.expanduser() if source else None
    if path and not path.is_dir() and path.exists():
        if not path.is_file():
            raise InvalidInput(f"{path} is neither a file nor a folder", field="SOURCE", hint="name a file")
        place, stamp = source_place(context, path), _stamp(path)
        digest = context.registry.known_digest(_name(place), _text(stamp)) or _digest(path)
        yield Parcel(place, path, digest, stamp, "")
        return
    if path and not path.exists():
        raise NotFound(f"{path} does not exist", field="SOURCE", hint="check the path")
    folder = chosen_dataset(context, path)
    with locked_dataset(context, folder.path), scratch(folder.path) as place:
        content = " ".join(folder.digests())
        archive = pack_dataset(folder, place / f"{folder.path.name}.zip")
        stamp = _stamp(archive)
        yield Parcel(folder.path, archive, sha256_file(archive), stamp, content)


def source_place(context: Context, source: Path | None) -> Path:
    """What tickets and the registry call a source. A link stays one: its own name says what it is, not its target's."""
    return folder_at(source, "SOURCE") if source else default_folder(context)


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(path.stat())
    except OSError as error:
        raise explained(error, path) from error


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise explained(error, path) from error


def _text(stamp: Stamp) -> str:
    return " ".join(map(str, stamp))


def _name(path: Path) -> str:
    """A path as text that the registry can hold, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _changed(path: Path, last: Upload) -> bool:
    """Whether the source is another than when it was uploaded, or gone."""
    try:
        if last.content:
            return " ".join(DatasetFolder(path).digests()) != last.content
        return _text(stamp_of(path.stat())) != last.stamp
    except (DreamctlError, OSError):
        return True


def _send(context: Context, storage: Storage, parcel: Parcel, size: int, ticket: FileTicket) -> None:
    """Send, and leave either the object, or a ticket that goes on, or nothing."""
    verb = "going on with" if ticket.state is not None else "uploading"
    context.reporter.note(f"{verb} {parcel.file.name}, {quantities.bytes_text(size)}")

    def progress(done: int, total: int) -> None:
        context.reporter.progress("upload", done, total, unit="bytes")

    try:
        storage.put(parcel.key, parcel.file, parcel.sha256, stamp=parcel.stamp, ticket=ticket, progress=progress)
    except (ProviderError, CredentialsError) as error:
        if not ticket.state:  # nothing was begun
            ticket.drop()
        else:
            error.hint = f"{error.hint + '; ' if error.hint else ''}`dreamctl upload --resume` goes on where it ended"
        raise
    except KeyboardInterrupt as raised:
        kind = "terminated" if isinstance(raised, Signalled) else "stopped"
        raise signalled_error(raised, *_stopped(storage, ticket, kind)) from raised
    except DreamctlError:
        _abandoned(storage, ticket)
        raise


def _abandoned(storage: Storage, ticket: FileTicket) -> bool:
    """Remove what was sent; whether something may be left all the same."""
    try:
        if ticket.state is not None:
            storage.abandon(ticket.journey.key, ticket.state)
        ticket.drop()
    except (DreamctlError, KeyboardInterrupt):
        return True
    return False


def _stopped(storage: Storage, ticket: FileTicket, kind: str) -> tuple[str, str]:
    """What is told, and advised, after Ctrl-C or SIGTERM."""
    if _abandoned(storage, ticket):
        return f"{kind}: parts of it may be left in the storage", "`dreamctl upload --clean` removes them"
    try:
        stored = storage.head(ticket.journey.key)
    except (DreamctlError, KeyboardInterrupt):
        stored = None
    if stored and stored.sha256 == ticket.journey.sha256:
        return f"{kind}: it was uploaded already", "the same command again prints its URL"
    return f"{kind}: nothing of it is left in the storage", "run the same command again"
