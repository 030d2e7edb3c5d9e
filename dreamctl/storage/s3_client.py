"""A client of one S3 service: endpoint, signatures, checksums and credentials, as settings and Amazon's own chain say.

Beside Amazon the defaults of boto3 break (boto3 issues 4398 and 4400): checksums in trailers are answered with 411, and
URLs are signed with version 2. There bodies are signed instead, so that the server still refuses what came damaged.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from dreamctl import __version__
from dreamctl.errors import CredentialsError
from dreamctl.http import printable, quiet_loggers, remember_secret
from dreamctl.storage.base import Access
from dreamctl.storage.s3_errors import KEYS
from dreamctl.storage.slices import Slice

CONNECT_SECONDS, READ_SECONDS = 5, 60
THREADS = 8
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_DEFAULT_REGION = "us-east-1"  # a signature names one; services that have none take this
_LOGGERS = ("botocore", "boto3", "urllib3")


@dataclass(frozen=True)
class Service:
    """A boto3 client, and what of its making others need. `ca_bundle`: the file that the server's certificate is of."""

    client: Any
    host: str
    amazon: bool
    ca_bundle: str | None
    credentials: Any

    @classmethod
    def open(cls, access: Access) -> Service:
        """Raises CredentialsError, and what boto3 raises; the endpoint is not asked yet, only who gives credentials."""
        import boto3
        import botocore.session

        quiet_loggers(*_LOGGERS)
        quiet_loggers("botocore.credentials", level=logging.ERROR)  # what it warns of is raised as well
        core = botocore.session.Session(profile=access.s3_profile)
        credentials = _credentials(core)
        session = boto3.Session(botocore_session=core)
        client = _client(session, core, access, amazon=access.s3_endpoint is None)
        amazon = _is_amazon(client.meta.endpoint_url)
        if amazon != (access.s3_endpoint is None):  # the endpoint stands in a variable or in Amazon's own files
            client = _client(session, core, access, amazon)
        client.meta.events.register("before-send.s3", _about_to_send)
        host = urlsplit(client.meta.endpoint_url).netloc
        ca_bundle = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        return cls(client, host, amazon, ca_bundle, credentials)

    def unsigned(self) -> Any:
        """The same client without credentials: its "presigned" URLs are plain ones."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        meta = self.client.meta
        config = meta.config.merge(Config(signature_version=UNSIGNED))
        return boto3.client("s3", region_name=meta.region_name, endpoint_url=meta.endpoint_url, config=config)

    def credentials_end(self) -> tuple[bool, datetime | None]:
        """Whether the credentials are temporary, and when they die where that is known."""
        if not self.credentials.get_frozen_credentials().token:
            return False, None
        return True, getattr(self.credentials, "_expiry_time", None)  # botocore shows it nowhere else


def _credentials(core: Any) -> Any:
    """Those of Amazon's own chain, had now: what is wrong with them is told before anything else is done."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    try:
        credentials = core.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()
    except (BotoCoreError, RuntimeError):  # said by botocore itself
        raise
    except Exception as error:  # whatever the answer of a credential process makes botocore stumble over
        raise CredentialsError(f"no keys for S3 could be had: {printable(str(error))}", hint=KEYS) from None
    for value in filter(None, (frozen.secret_key, frozen.token)):
        remember_secret(value)
    if any(char.isspace() for char in f"{frozen.access_key}{frozen.secret_key}{frozen.token}"):
        raise CredentialsError("the keys for S3 hold a space or a line break, and so are none", hint=KEYS)
    return credentials


def _about_to_send(request: Any, **_: Any) -> None:
    """What is read of a body from now on goes over the line; before it was read to be signed."""
    body = getattr(request.body, "_raw", request.body)  # inside what adds checksums in trailers
    if isinstance(body, Slice):
        body.sending = True


def _is_amazon(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith(_AMAZON)


def _client(session: Any, core: Any, access: Access, amazon: bool) -> Any:
    from botocore.config import Config

    # boto3's own "auto" signs URLs of s3.amazonaws.com, which sends on to other regions what then is signed wrong. A
    # bucket that does not fit into a certificate's name goes into the path in spite of "virtual".
    addressing = access.s3_addressing if access.s3_addressing != "auto" else "virtual" if amazon else "path"
    checksums = _checksums(core, access, amazon)
    s3: dict[str, Any] = {"addressing_style": addressing}
    if checksums == "when_required":
        s3["payload_signing_enabled"] = True
    config = Config(
        signature_version="s3v4",
        s3=s3,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},  # dreamctl.storage.patience tries again
        max_pool_connections=THREADS + 2,
        tcp_keepalive=True,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        user_agent_extra=f"dreamctl/{__version__}",
    )
    region = access.s3_region or core.get_config_variable("region") or (None if amazon else _DEFAULT_REGION)
    return session.client("s3", region_name=region, endpoint_url=access.s3_endpoint, config=config)


def _checksums(core: Any, access: Access, amazon: bool) -> str:
    """What the setting says, else Amazon's own variable or file, else what works."""
    name = "request_checksum_calculation"
    named = os.environ.get(f"AWS_{name.upper()}") or core.get_scoped_config().get(name)
    if access.s3_checksums != "auto":
        return access.s3_checksums
    return str(named).lower() if named else "when_supported" if amazon else "when_required"
