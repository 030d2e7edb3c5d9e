"""Models on the hub: brought into the local cache, and the hub's errors translated once.

Works without huggingface_hub, which only a hub id needs.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import os_hint, os_reason

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def model_folder(
    source: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    field: str = "--model",
) -> Path:
    """The folder of a model: `source` where that is one, else its `files` (patterns) from the hub or the local cache.

    Raises NotFound, InvalidInput, CredentialsError, ProviderError; each names `field`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision:
            raise InvalidInput(f"{source} is a folder: only the hub knows revisions", field="--revision")
        return folder
    if folder.exists() or not HUB_ID.fullmatch(source):
        raise NotFound(
            f"{source} is not a folder, nor a hub id", field=field, hint="a hub id is owner/name; else name a folder"
        )
    with hub_errors(source, revision, field=field, hint="check the network, or name a folder that holds the model"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=list(files), endpoint=endpoint, token=token)
        )


@contextlib.contextmanager
def hub_errors(source: str, revision: str | None, *, field: str, hint: str, what: str = "a model") -> Iterator[None]:
    """Translate the hub's errors: gated, missing, unreachable. `hint` says what to do about the last."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise InvalidInput(
            f"{source} is a hub id, and huggingface_hub is not installed",
            field=field,
            hint="pip install 'dreamctl[local]'",
        ) from error
    try:
        yield
    except errors.GatedRepoError as error:
        raise CredentialsError(
            f"{source} is gated: its licence must be accepted",
            field=field,
            hint=f"accept it at https://huggingface.co/{source}, then `dreamctl auth login huggingface`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(source, field, hint, error) from error
        at = f" at {revision}" if revision else ""
        raise NotFound(
            f"{source}{at} is not {what} on the hub, or is private",
            field=field,
            hint="check the name; for a private one, `dreamctl auth login huggingface`",
        ) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, OSError) and (way := os_hint(error)):  # a full disk is not the network's fault
            raise DreamctlError(f"{error.filename or source}: {os_reason(error)}", hint=way) from error
        raise _unreachable(source, field, hint, error) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise
        raise _unreachable(source, field, hint, error) from error


def _unreachable(source: str, field: str, hint: str, error: Exception) -> ProviderError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ProviderError(
        f"{source} is not in the local cache and the hub did not give it: {reason}", field=field, hint=hint
    )
