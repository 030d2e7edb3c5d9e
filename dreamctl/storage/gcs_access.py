"""Who asks Google Cloud Storage, over which connections, and who signs URLs."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dreamctl.domain.quantities import LONGEST_LINK
from dreamctl.errors import CredentialsError
from dreamctl.http import quiet_loggers, remember_secret
from dreamctl.storage.base import check_lifetime
from dreamctl.storage.gcs_errors import CREDENTIALS_HINT

LONGEST_BY_GOOGLE = 12 * 3600  # seconds; a key that Google keeps is exchanged, and what it signed dies with it
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)  # signing through Google needs more than the storage's


@dataclass(frozen=True)
class Reach:
    """What requests are made with. `media` sends the credentials along, `plain` nothing beside the URL."""

    client: Any  # google.cloud.storage.Client
    media: Any  # requests.Session
    plain: Any  # requests.Session
    signing: Any  # google.auth.credentials.Credentials


def reach(credentials_file: str | None) -> Reach:
    """The client, with the credentials of a file or else those of this computer; an emulator is asked without any.

    Raises what Google's libraries raise, and CredentialsError.
    """
    import requests
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud import storage

    # Version 3.17 asks for the bucket's project and place in a thread of its own, for traces that nobody reads here.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    quiet_loggers("google", "urllib3", "requests")
    quiet_loggers("google.auth", level=logging.ERROR)
    emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    anonymous = AnonymousCredentials() if emulated else None
    signing = _loaded(credentials_file) if credentials_file or not emulated else anonymous
    asking = anonymous or signing
    client = storage.Client(project=None, credentials=asking)
    return Reach(client, AuthorizedSession(asking), requests.Session(), signing)


def check_signing(credentials: Any, seconds: int) -> None:
    """Raises InvalidInput and CredentialsError where no URL can be signed for so long."""
    most = _longest(credentials)
    if most == 0:
        raise CredentialsError(
            "the credentials for Google Cloud Storage cannot sign a URL, since they hold no service account's key",
            hint="set gcs_credentials (or GOOGLE_APPLICATION_CREDENTIALS) to a service account's key file, run "
            "`gcloud auth application-default login --impersonate-service-account=EMAIL`, or use --public",
        )
    check_lifetime(seconds, most, "what Google signs for these credentials")


def sign(blob: Any, credentials: Any, seconds: int, endpoint: str) -> str:
    """A URL for reading the object, by the rules of version 4. Raises what Google's libraries raise."""
    from google.auth.credentials import Signing
    from google.auth.transport.requests import Request

    by_token = {}
    if not isinstance(credentials, Signing):
        credentials.refresh(Request())  # only then the account's own name is known
        by_token = {"service_account_email": credentials.service_account_email, "access_token": credentials.token}
    url = str(
        blob.generate_signed_url(
            version="v4",
            expiration=seconds,
            method="GET",
            credentials=credentials,
            api_access_endpoint=endpoint,
            **by_token,
        )
    )
    remember_secret(parse_qs(urlsplit(url).query)["X-Goog-Signature"][0])
    return url


def _longest(credentials: Any) -> int:
    """For how many seconds URLs can be signed; 0 where none can."""
    from google.auth.credentials import Signing
    from google.auth.impersonated_credentials import Credentials as Impersonated

    if isinstance(credentials, Signing) and not isinstance(credentials, Impersonated):
        return LONGEST_LINK
    if isinstance(credentials, Impersonated) or getattr(credentials, "service_account_email", None):
        return LONGEST_BY_GOOGLE
    return 0


def _loaded(file: str | None) -> Any:
    import google.auth

    with warnings.catch_warnings():  # about quotas of end users, and about files from strangers
        warnings.simplefilter("ignore")
        if file is None:
            return google.auth.default(scopes=_SCOPES)[0]
        path = Path(file).expanduser()
        try:
            return google.auth.load_credentials_from_file(str(path), scopes=_SCOPES)[0]
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise CredentialsError(f"{path} is no key file: {reason}", hint=CREDENTIALS_HINT) from None
