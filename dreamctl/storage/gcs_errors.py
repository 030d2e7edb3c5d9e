"""What Google's libraries raise, translated once; no sentence repeats a URL: session URIs and signatures are secrets.

Statuses and what they mean: https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dreamctl.errors import CredentialsError, DreamctlError, NotFound, ProviderError
from dreamctl.http import passing, printable, retry_after
from dreamctl.storage.base import Changed, Denied, Passing

CREDENTIALS_HINT = (
    "set gcs_credentials (or GOOGLE_APPLICATION_CREDENTIALS) to a service account's key file, "
    "or run `gcloud auth application-default login`"
)
_SKEW = ("short-lived token", "iat and exp")
_MOST = 300


class Refused(ProviderError):
    """An answer that will be the same next time."""


@contextlib.contextmanager
def told(bucket: str, action: str) -> Iterator[None]:
    """Foreign errors of the block as ours; `action` ends the sentence "these credentials may not …"."""
    try:
        yield
    except DreamctlError:
        raise
    except Exception as error:
        ours = _translated(error, bucket, action)
        if ours is None:
            raise
        raise ours from None  # the chain would show URLs and headers


def refusal(response: Any, bucket: str, action: str) -> DreamctlError:
    """What an answer that is no success says; a 404 is the bucket's here."""
    status, said = response.status_code, _said(response)
    if status == 401:
        return CredentialsError(f"gs://{bucket}: the credentials were refused (401){said}", hint=CREDENTIALS_HINT)
    if status == 403:
        return Denied(
            f"gs://{bucket}: these credentials may not {action} (403){said}",
            hint="give their account roles/storage.objectAdmin on the bucket, or set gcs_credentials to other ones",
        )
    if status == 404:
        return no_bucket(bucket)
    if status in (412, 416):
        return Changed(f"gs://{bucket}: the object is another one by now ({status})", hint="look at it, then try again")
    if passing(status):
        wait = retry_after(response.headers.get("Retry-After", ""))
        return Passing(
            f"gs://{bucket}: Google Cloud Storage answered {status}{said}", hint="try again later", wait=wait
        )
    return Refused(f"gs://{bucket}: Google Cloud Storage answered {status}{said}")


def no_bucket(bucket: str) -> NotFound:
    """The bucket is not there."""
    return NotFound(
        f"there is no bucket {bucket!r} in Google Cloud Storage",
        field="storage",
        hint=f"check its name, or make it: `gcloud storage buckets create gs://{bucket}`",
    )


def _translated(error: Exception, bucket: str, action: str) -> DreamctlError | None:
    import requests
    import urllib3
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, GoogleAPICallError) and error.response is not None:
        return refusal(error.response, bucket, action)
    if isinstance(error, TransportError) and isinstance(error.__cause__, requests.RequestException):
        return _unreachable(error.__cause__, "the server that gives tokens")
    if isinstance(error, GoogleAuthError):
        return _no_token(error)
    if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
        return _unreachable(error, "Google Cloud Storage")
    if isinstance(error, GoogleAPICallError):
        return ProviderError(f"gs://{bucket}: Google Cloud Storage failed: {type(error).__name__}")
    return None


def _no_token(error: Any) -> DreamctlError:
    """A GoogleAuthError."""
    said = str(error.args[0] if error.args else "")
    text = printable(said)[:_MOST] if said and "<" not in said else type(error).__name__  # a page helps nobody
    if any(word in text for word in _SKEW):
        return CredentialsError(
            "Google refused the credentials since this computer's clock is wrong",
            hint="set the clock (`timedatectl set-ntp true`), then run the same command again",
        )
    if error.retryable:
        return Passing(f"no token for Google Cloud Storage: {text}", hint="try again later")
    return CredentialsError(f"no credentials for Google Cloud Storage: {text}", hint=CREDENTIALS_HINT)


def _unreachable(error: Exception, whom: str) -> ProviderError:
    import requests
    import urllib3

    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return Passing(f"{whom} did not answer in time", hint="check the network and the proxy, then try again")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ProviderError(
            f"{whom} shows a certificate that nobody here trusts",
            hint="behind a proxy that opens TLS set REQUESTS_CA_BUNDLE to its certificate",
        )
    if isinstance(error, ValueError):  # not JSON, or the URL is none
        return ProviderError(
            f"{whom} is not what answers: {type(error).__name__}", hint="check the proxy and STORAGE_EMULATOR_HOST"
        )
    return Passing(
        f"the connection to {whom} failed: {_reason(error)}", hint="check the network and the proxy, then try again"
    )


def _reason(error: BaseException) -> str:
    """What the system said, found in the chain: the texts on the way to it hold URLs."""
    innermost: BaseException | None = error
    reason = type(error).__name__
    while innermost is not None:
        if isinstance(innermost, OSError) and innermost.strerror:
            reason = innermost.strerror
        innermost = innermost.__cause__ or innermost.__context__
    return printable(str(reason))


def _said(response: Any) -> str:
    """What the server says is wrong, with a colon before it, or ""."""
    try:
        problem = response.json()["error"]
        text = problem["message"] if isinstance(problem, dict) else str(problem)
    except (ValueError, KeyError, TypeError):
        plain = response.headers.get("Content-Type", "").startswith("text/plain")
        text = response.text if plain else ""
    text = printable(str(text))[:_MOST]
    return f": {text}" if text else ""
