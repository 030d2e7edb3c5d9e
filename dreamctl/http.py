"""Talking to providers: patient requests, foreign errors translated once, and secrets kept out of every sentence.

httpx is imported by the first request, so that the error boundary can redact without it.
"""

from __future__ import annotations

import email.utils
import functools
import ipaddress
import logging
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from dreamctl.deadline import cut_after
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 30.0
RETRIES = 4
SUBMISSION = 100.0
"""Seconds that sending a job takes at most, with all tries: other computers take one that is under way for longer for
lost."""
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # a second POST could bill a second job
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0

_IN_WORDS = re.compile(r"~\s*(\d+)\s*s")

log = logging.getLogger(__name__)


class AnswerLost(ProviderError):
    """A request that must not run twice was sent, and nobody knows whether it ran."""

    code = "answer_lost"


def request(
    method: str,
    url: str,
    *,
    token: str | None = None,
    json: Any = None,
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
    repeatable: bool = False,
    once: bool = False,
    within: float | None = None,
    files: Mapping[str, Any] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> httpx.Response:
    """The provider's answer (2xx). A token goes to the URL's own origin only, over https or to this computer.

    Idempotent methods, and what the caller calls `repeatable`, are tried again, with growing pauses or the server's
    Retry-After, when the connection fails or the answer is 408, 429 or 5xx. `once`: what must not run twice is tried
    again only where it surely did not run: no connection, or 429. A 408 or 5xx, a 503 that says when among them, may
    come from a proxy that had passed the request on. `within`: seconds for all tries together; then the connection is
    cut, and no pause is begun that would end later. `timeout`: seconds of one silence. `files`: a multipart form's.
    Raises CredentialsError (401, 403), NotFound (404), AnswerLost where a request that must run `once` may have run,
    ProviderError (all else), InvalidInput for a URL that a token may not go to.
    """
    import httpx

    if token:
        remember_secret(token)
        _check_origin(url)
    end = math.inf if within is None else time.monotonic() + within
    attempts = 1 + (retries if once or repeatable or method.upper() in _IDEMPOTENT else 0)
    with httpx.Client(follow_redirects=False, verify=_trusted()) as client, cut_after(within) as extensions:
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            silence = max(0.001, min(timeout, end - time.monotonic()))
            how = {"json": json, "files": files, "timeout": silence, "extensions": extensions}
            try:
                answer = _follow(client, method.upper(), url, token, how)
            except httpx.HTTPError as error:
                late = isinstance(error, httpx.TimeoutException) or time.monotonic() >= end
                if once and not isinstance(
                    error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol
                ):
                    raise _lost(url, _unreachable(url, error, late).message) from None
                pause = backoff(attempt)
                if last or not isinstance(error, httpx.TransportError) or time.monotonic() + pause >= end:
                    raise _unreachable(url, error, late) from None  # the chain could show headers
            except httpx.InvalidURL as error:
                raise InvalidInput(f"{redact(url)} is not a URL: {redact(str(error))}") from None
            else:
                if answer.is_success:
                    return answer
                if once and answer.status_code != 429 and passing(answer.status_code):
                    raise _lost(url, f"{answer.request.url.host} answered {answer.status_code}")
                asked = asked_pause(answer)
                pause = backoff(attempt) if asked is None else asked
                if last or not passing(answer.status_code) or time.monotonic() + pause >= end:
                    _refuse(answer)
            log.info("%s %s: trying again in %.1f s", method.upper(), redact(url), pause)
            sleep(pause)
    raise AssertionError("unreachable")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted; reading them takes longer than a request to a provider that is near."""
    import httpx

    return httpx.create_ssl_context()


def loopback(host: str) -> bool:
    """Whether a host name means this computer."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def local_network(host: str) -> bool:
    """Whether a host is this computer, or an address of a private network (RFC 1918, RFC 4193, link-local)."""
    try:
        return loopback(host) or any(ipaddress.ip_address(host) in network for network in _PRIVATE)
    except ValueError:
        return False


def may_carry_token(url: str) -> bool:
    """Whether a token may go to `url`: over https, or to this computer."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and loopback(parts.hostname or ""))


def _check_origin(url: str) -> None:
    if not may_carry_token(url):
        raise InvalidInput(
            f"{redact(url)}: a token is sent over https only (http only to this computer)", hint="use an https:// URL"
        )


def _follow(client: httpx.Client, method: str, url: str, token: str | None, how: Mapping[str, Any]) -> httpx.Response:
    """Send, and follow redirects: reads anywhere but without the token elsewhere, writes only on the same origin."""
    import httpx

    place = httpx.URL(url)
    origin = _origin(place)
    for _ in range(_MOST_REDIRECTS + 1):
        same = _origin(place) == origin
        headers = {"Authorization": f"Bearer {token}"} if token and same else {}
        answer = client.request(method, place, headers=headers, **how)
        if answer.status_code not in _REDIRECTS or "location" not in answer.headers:
            return answer
        target = place.join(answer.headers["location"])
        downgraded = place.scheme == "https" and target.scheme != "https"
        kept = method in ("GET", "HEAD") or (answer.status_code in (307, 308) and _origin(target) == origin)
        if downgraded or not kept or target.scheme not in ("http", "https"):
            raise ProviderError(
                f"{origin[1]} answered {method} with a redirect to {target.host or 'nowhere'}, which is not followed",
                hint="check the endpoint's URL",
            )
        place = target
    raise ProviderError(f"{origin[1]} redirects in a circle", hint="check the endpoint's URL")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def passing(status: int) -> bool:
    """Whether a status may be another one soon."""
    return status in (408, 429) or status >= 500


def backoff(attempt: int) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 0): growing, and never the same for all."""
    return float(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.75, 1.25))


def retry_after(header: str) -> float | None:
    """Seconds that a server asks to wait for by `Retry-After`, at most a minute; it may say a number or a date."""
    wanted = header.strip()
    if wanted.isascii() and wanted.isdigit():
        return min(float(wanted), _LONGEST_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(wanted)
    except ValueError:
        return None
    return max(0.0, min(moment.timestamp() - time.time(), _LONGEST_PAUSE))


def asked_pause(answer: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait for: by `Retry-After`, or in words, as Replicate's 429 does ("~30s")."""
    asked = retry_after(answer.headers.get("retry-after", ""))
    if asked is None and answer.status_code == 429 and (said := _IN_WORDS.search(answer.text[:1000])):
        asked = min(float(said[1]), _LONGEST_PAUSE)
    return asked


def _lost(url: str, reason: str) -> AnswerLost:
    return AnswerLost(f"{reason}: whether the request arrived is not known", hint="it is not sent again blindly")


def _unreachable(url: str, error: Exception, late: bool) -> DreamctlError:
    import httpx

    host = httpx.URL(url).host
    if late:
        return ProviderError(f"{host} did not answer in time", hint="try again, or look at the provider's status page")
    reason = printable(str(error)) or type(error).__name__
    return ProviderError(f"cannot reach {host}: {reason}", hint="check the network and the proxy, then try again")


def _refuse(answer: httpx.Response) -> NoReturn:
    host, status, said = answer.request.url.host, answer.status_code, _detail(answer)
    ending = f": {said}" if said else ""
    if status in (401, 403):
        raise CredentialsError(
            f"{host} refused the token ({status}){ending}" if "authorization" in answer.request.headers
            else f"{host} wants a token ({status}){ending}",
            hint="`dreamctl auth status` says which token is used, `dreamctl auth login PROVIDER` stores another",
        )  # fmt: skip
    if status == 404:
        raise NotFound(f"{host}: {redact(answer.request.url.path)} is not there (404){ending}")
    hint, asked = "try again later" if passing(status) else None, asked_pause(answer)
    if hint and asked:
        hint = f"try again in {asked:.0f} s" + " or later" * (asked >= _LONGEST_PAUSE)
    raise ProviderError(f"{host} answered {status} {answer.reason_phrase}".rstrip() + ending, hint=hint)


def _detail(answer: httpx.Response) -> str:
    """What the provider says is wrong: a field of its JSON, else nothing (an HTML page helps nobody)."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    if isinstance(body, dict):
        body = next((body[key] for key in ("detail", "error", "message", "title") if body.get(key)), "")
        body = body.get("message", "") if isinstance(body, dict) else body
    return printable(body)[:300] if isinstance(body, str) else ""


def printable(text: str) -> str:
    """Foreign text for one line of a terminal or a log: no control characters, no secrets."""
    return redact(" ".join("".join(char if char.isprintable() else " " for char in text).split()))


# secrets

_secrets: set[str] = set()
_HIDDEN = "***"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), f"\\1{_HIDDEN}")
    for pattern in (
        r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*(?=@)",
        r"(authorization['\"]?\s*[:=]\s*(?:b?['\"])?(?:(?:bearer|token|basic)\s+)?)[^\s'\",}]+",
        r"(\bbearer\s+)[\w.~+/=-]{8,}",
        r"(\baws4-hmac-sha256 credential=)[^\s,]+",
        r"([\s,]signature=)[0-9a-f]{32,}",
        r"(x-(?:amz|goog)-(?:signature|credential|security-token)%3d)[^&\s'\"<>%]+",
        r"(\baws_(?:secret_access_key|session_token)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+",
        r"(['\"](?:private_key|refresh_token|client_secret)['\"]\s*:\s*['\"])[^'\"]+",
        r"([?&;](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|"
        r"upload_id|signature|sig|token|access_token|api_key|apikey|key|secret|password)=)[^&\s'\"<>]+",
        r"((?:x-amz-security-token|x-amz-credential|x-amz-signature|x-goog-signature)['\"]?\s*[:=]\s*['\"]?)[^&\s'\",}<>]+",
        r"(['\"](?:token|access_token|api_?key|x-api-key|secret|access_?secret|password|hf_token)['\"]\s*:\s*b?['\"])[^'\"]+",
        r"\b(sk-)(?=[\w-]*\d)[\w-]{16,}",
        r"\b((?:hf|r8|rpa)_)(?=[a-z_]*\d|\w{16})\w{4,}",
        r"\b(whsec_)[\w+/=-]{4,}",
    )
)


def remember_secret(value: str) -> None:
    """From now on `redact` hides this very text, whatever it looks like."""
    if len(value) >= 6:  # shorter ones would blank ordinary words
        _secrets.add(value)


def redact(text: str) -> str:
    """`text` without tokens, passwords and signatures."""
    for value in sorted(_secrets, key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def quiet_loggers(*names: str, level: int = logging.INFO) -> None:
    """Keep libraries that print headers and signed URLs below `level` from that."""
    for name in names:
        logging.getLogger(name).setLevel(max(level, logging.root.level))


class RedactingFormatter(logging.Formatter):
    """A log line, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
