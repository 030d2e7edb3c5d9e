"""When a signed URL runs out, by what its own query says: S3 and its likes, Google Cloud Storage, CloudFront, Azure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl, urlsplit


def expires_at(url: str) -> datetime | None:
    """The moment (UTC) after which the URL opens nothing; None where it is not signed, or in a way not known here."""
    try:
        pairs = parse_qsl(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return None
    query = {name.lower(): value for name, value in pairs}
    for read in _SCHEMES:
        with contextlib.suppress(
            KeyError, ValueError, OverflowError, OSError
        ):  # the server will say what it thinks of it
            return read(query)
    return None


def _version_4(prefix: str, query: Mapping[str, str]) -> datetime:
    """A beginning and a number of seconds."""
    begins = datetime.strptime(query[f"{prefix}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return begins + timedelta(seconds=int(query[f"{prefix}-expires"]))


def _epoch(query: Mapping[str, str]) -> datetime:
    """Seconds since the epoch: S3 and Google before version 4, and CloudFront."""
    if "signature" not in query:
        raise KeyError
    return datetime.fromtimestamp(int(query["expires"]), UTC)


def _azure(query: Mapping[str, str]) -> datetime:
    """A shared access signature: a time, or only a day."""
    if "sig" not in query:
        raise KeyError
    ends = datetime.fromisoformat(query["se"])
    return ends if ends.tzinfo else ends.replace(tzinfo=UTC)


_SCHEMES = (partial(_version_4, "x-amz"), partial(_version_4, "x-goog"), partial(_version_4, "x-oss"), _epoch, _azure)
