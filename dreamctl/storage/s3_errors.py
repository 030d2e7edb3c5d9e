"""What S3 services and boto3 raise, as one sentence each: what is wrong, where, and the way out."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamctl.domain.quantities import spoken
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.http import passing, printable, retry_after
from dreamctl.storage.base import Changed, Denied, Passing


class NoAnswer(Passing):
    """The connection was not made, or ended before an answer."""


class NoSuchUpload(ProviderError):
    """The multipart upload is ended, or was never begun."""


class NoBucket(NotFound):
    """The bucket, not an object in it."""


@dataclass(frozen=True)
class Place:
    """Where it happened, and what was to be done: "read s3://bucket/key"."""

    bucket: str
    host: str
    action: str


KEYS = "check the access key and the secret key (AWS_ACCESS_KEY_ID …, ~/.aws/credentials, or the setting s3_profile)"
_RENEW = "get new ones, such as by `aws sso login`, or use keys that last"
_LATER = "run the same command again: what was sent is not sent again"

# Code of the service -> kind of error, sentence, hint.
_SENTENCES: Mapping[str, tuple[type[DreamctlError], str, str]] = {
    "NoSuchBucket": (NoBucket, "there is no bucket {bucket!r} at {host}", "check its name, or create it first"),
    "NoSuchKey": (NotFound, "cannot {action}: nothing is there", "check the key"),
    "NoSuchUpload": (NoSuchUpload, "the upload at {host} is ended already", "run the same command again"),
    "InvalidAccessKeyId": (CredentialsError, "{host} does not know the access key", KEYS),
    "SignatureDoesNotMatch": (CredentialsError, "{host} refuses the signature: the secret key is wrong", KEYS),
    "ExpiredToken": (CredentialsError, "the temporary credentials for {host} have expired", _RENEW),
    "ExpiredTokenException": (CredentialsError, "the temporary credentials for {host} have expired", _RENEW),
    "TokenRefreshRequired": (CredentialsError, "the temporary credentials for {host} have expired", _RENEW),
    "InvalidToken": (CredentialsError, "{host} does not know the session token", _RENEW),
    "RequestExpired": (CredentialsError, "{host} calls the request too old", "is this computer's clock right?"),
    "AccessDenied": (
        Denied, "no permission to {action}",
        "let the account do that (s3:GetObject, s3:PutObject, s3:ListBucket, s3:AbortMultipartUpload), or use another",
    ),
    "AllAccessDisabled": (Denied, "no permission to {action}: the bucket is locked", "ask its owner"),
    "AccountProblem": (CredentialsError, "{host} refuses the account", "look at its console"),
    "PreconditionFailed": (Changed, "cannot {action}: somebody else changed it", "look at it, then try again"),
    "NotImplemented": (ProviderError, "{host} cannot {action} in this way", "use another storage for this"),
    "InvalidBucketName": (InvalidInput, "{bucket!r} is no bucket's name", "lower case letters, digits, dots, hyphens"),
    "QuotaExceeded": (ProviderError, "the bucket {bucket!r} at {host} is full", "delete something, or raise its quota"),
    "EntityTooLarge": (ProviderError, "{host} does not take so large a file", "raise its limit, or use another"),
    "PermanentRedirect": (
        InvalidInput, "the bucket {bucket!r} is in another region than the request said", "set s3_region to its region",
    ),
    "AuthorizationHeaderMalformed": (
        InvalidInput, "the bucket {bucket!r} is in another region than the request said", "set s3_region to its region",
    ),
    "IllegalLocationConstraintException": (
        InvalidInput, "the bucket {bucket!r} is in another region than the request said", "set s3_region to its region",
    ),
    "MissingContentLength": (
        ProviderError, "{host} does not understand checksums in trailers", "set s3_checksums to when_required",
    ),
}  # fmt: skip
# Of a HEAD, which has no body: what its status means.
_STATUS = {"403": "AccessDenied", "404": "NoSuchKey", "412": "PreconditionFailed", "405": "NotImplemented"}
_PASSING = frozenset(
    ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "ServiceUnavailable",
     "InternalError", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest",
     "XAmzContentSHA256Mismatch")
)  # fmt: skip
_ERRNO = re.compile(r"\[Errno -?\d+\] ([^'\")]+)")
_CERTIFICATE = ("certificate", "hostname", "no such file")


def translated(error: Exception, place: Place) -> DreamctlError:
    """The error of boto3, botocore or a credential provider as one of ours; Passing where it may pass."""
    from botocore import exceptions as known

    if isinstance(error, DreamctlError):
        return error
    if isinstance(error, known.ClientError):
        return _refused(error.response, place)
    said = printable(str(error))
    if isinstance(error, known.SSLError) and (wrong := _distrusted(str(error.kwargs["error"]), place.host)):
        return wrong
    if isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
        return CredentialsError(f"there are no keys for {place.host}: {_first(said)}", hint=KEYS)
    if isinstance(error, known.ProfileNotFound):
        return CredentialsError(_first(said), hint="`aws configure list-profiles` shows those there are")
    if isinstance(error, known.ConfigParseError):
        return InvalidInput(_first(said), field="storage", hint="correct that file")
    if isinstance(error, _credential_errors()):
        return _no_keys(said, place)
    if isinstance(error, known.ParamValidationError):
        return InvalidInput(f"cannot {place.action}: {said}", field="storage", hint="check the bucket's name")
    if isinstance(error, (known.HTTPClientError, known.ConnectionError, known.IncompleteReadError)):
        return NoAnswer(f"cannot reach {place.host}: {_reason(error)}", hint=_LATER)
    if isinstance(error, (known.BotoCoreError, ValueError)):
        return InvalidInput(f"cannot {place.action}: {said}", field="storage", hint="check endpoint, region and bucket")
    if isinstance(error, (RuntimeError, OSError)):  # of credentials: renewed and dead all the same; by a lost program
        return _no_keys(said, place)
    raise error


def no_bucket(place: Place) -> NoBucket:
    """What a HEAD of a bucket that is not there is told as."""
    return NoBucket(f"there is no bucket {place.bucket!r} at {place.host}", hint=_SENTENCES["NoSuchBucket"][2])


def code_of(error: Exception) -> str:
    """The service's code for an error, `404` and so on for a HEAD; "" for errors that no service answered."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _refused(response: Mapping[str, Any], place: Place) -> DreamctlError:
    code = str(response.get("Error", {}).get("Code", ""))
    about = response.get("ResponseMetadata", {})
    status, headers = int(about.get("HTTPStatusCode", 0)), about.get("HTTPHeaders", {})
    code = _STATUS.get(code, code)
    if code == "RequestTimeTooSkewed":
        return CredentialsError(
            f"{place.host} refuses the request: this computer's clock is {_skew(headers.get('date', ''))}",
            hint="set the clock right (such as by `timedatectl set-ntp true`)",
        )
    if code in _SENTENCES:
        kind, sentence, hint = _SENTENCES[code]
        return kind(sentence.format(bucket=place.bucket, host=place.host, action=place.action), hint=hint)
    detail = printable(str(response.get("Error", {}).get("Message", "")))[:200]
    said = f"{status} {printable(code)}" if code not in ("", str(status)) else f"{status}"
    sentence = f"{place.host} answered {said} when asked to {place.action}"
    sentence += f": {detail}" if detail and detail != code else ""
    if code in _PASSING or (passing(status) and status not in (501, 507)):
        return Passing(sentence, hint=_LATER, wait=retry_after(headers.get("retry-after", "")))
    if status in (401, 403):
        return CredentialsError(sentence, hint=KEYS)
    return ProviderError(sentence, hint="check endpoint, region and bucket")


def _skew(date: str) -> str:
    try:
        apart = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return "wrong"
    return f"{spoken(abs(apart))} {'ahead' if apart > 0 else 'behind'}"


def _distrusted(said: str, host: str) -> DreamctlError | None:
    """What TLS says, where it will say so again."""
    if "wrong version number" in said:
        return ProviderError(f"{host} does not speak TLS", hint="write the endpoint with http://, or correct its port")
    if not any(word in said.lower() for word in _CERTIFICATE):
        return None
    return ProviderError(
        f"{host} cannot be trusted: {printable(said)}",
        hint="set AWS_CA_BUNDLE to the file of its certificate authority, or correct the endpoint",
    )


def _no_keys(said: str, place: Place) -> CredentialsError:
    return CredentialsError(f"no keys for {place.host} could be had: {said[:300].rstrip('.')}", hint=_RENEW)


def _reason(error: Exception) -> str:
    """The system's own word for what is wrong; never the text of the error, which may hold anything, headers too."""
    from botocore import exceptions as known

    cause = getattr(error, "kwargs", {}).get("error", "")
    if found := _ERRNO.search(str(cause)):
        reason = printable(found[1]).lower()
    elif isinstance(error, (known.ReadTimeoutError, known.ConnectTimeoutError)):
        reason = "it did not answer in time"
    elif isinstance(error, (known.ConnectionClosedError, known.IncompleteReadError)):
        reason = "it closed the connection"
    else:
        reason = f"the request failed ({type(cause or error).__name__})"
    return f"by the proxy: {reason}" if isinstance(error, known.ProxyConnectionError) else reason


def _first(text: str) -> str:
    """The first sentence, without its full stop."""
    return text.partition(". ")[0].rstrip(".")


def _credential_errors() -> tuple[type[Exception], ...]:
    from botocore import exceptions as known

    names = (
        "CredentialRetrievalError", "UnauthorizedSSOTokenError", "SSOError", "TokenRetrievalError",
        "MetadataRetrievalError", "InvalidConfigError", "RefreshWithMFAUnsupportedError",
    )  # fmt: skip
    return tuple(getattr(known, name) for name in names if hasattr(known, name))
