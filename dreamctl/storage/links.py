"""Trying a URL as a stranger would: one byte of it, without any credentials."""

from __future__ import annotations

import logging
import ssl

from dreamctl.errors import ProviderError
from dreamctl.http import passing, printable, quiet_loggers, retry_after
from dreamctl.storage.base import Passing
from dreamctl.storage.patience import Patience, patiently

_SECONDS = 15.0
_PATIENCE = 20.0
_SHUT = (400, 401, 403, 404)


def opens(url: str, size: int, ca_bundle: str | None = None) -> bool:
    """Whether anyone gets an object of `size` bytes at `url`; False where it is shut or not there.

    Raises ProviderError where nobody could be asked, and where what comes has another size. The URL is never repeated.
    """
    return patiently(lambda: _opens(url, size, ca_bundle), Patience(_PATIENCE))


def _opens(url: str, size: int, ca_bundle: str | None) -> bool:
    import httpx

    quiet_loggers("httpx", "httpcore", level=logging.WARNING)
    host = httpx.URL(url).host
    trust = ssl.create_default_context(cafile=ca_bundle) if ca_bundle else True
    try:
        with (
            httpx.Client(timeout=_SECONDS, verify=trust) as client,
            client.stream("GET", url, headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as answer,
        ):
            status, headers = answer.status_code, answer.headers
    except httpx.HTTPError as error:
        reason = printable(str(error)) or type(error).__name__
        raise Passing(f"the URL could not be tried: {host}: {reason}", hint="check the network and the proxy") from None
    if status in _SHUT:
        return False
    if passing(status):
        raise Passing(
            f"{host} answered {status} when the URL was tried", wait=retry_after(headers.get("retry-after", ""))
        )
    if status == 416 and size == 0:
        return True
    said = headers.get("content-range", "").rpartition("/")[2] if status == 206 else headers.get("content-length", "")
    if status not in (200, 206) or said != str(size):
        raise ProviderError(
            f"{host} gives something else at the URL (status {status}, {said or 'unknown'} bytes instead of {size})",
            hint="check the endpoint and the public URL",
        )
    return True
