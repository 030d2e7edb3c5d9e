"""Requests to Replicate's HTTP API; what it answers is checked before anybody counts on it."""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from dreamctl import http
from dreamctl.errors import InvalidInput, NotFound, ProviderError

FILE_LIMIT = 100_000_000
"""Bytes that the files API takes."""
_UPLOAD_SECONDS = 300.0
_MOST_PAGES = 200
_LARGEST_SKEW = 24 * 3600.0

Training = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """A page of the list of trainings, newest first. `skew`: seconds that Replicate's clock is ahead of ours."""

    trainings: tuple[Training, ...]
    skew: float


class Api:
    """The API at a URL, with a token. Its methods raise what `dreamctl.http.request` raises."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token

    def account(self) -> str:
        """The name of the account that the token belongs to."""
        name = self._object("/account").get("username")
        if not is_word(name):
            raise self._odd("/account")
        return str(name)

    def hardware(self) -> dict[str, str]:
        """What models can run on: name by SKU."""
        listed = self._json(self._get("/hardware"), "/hardware")
        if not isinstance(listed, list):
            raise self._odd("/hardware")
        items = [item for item in listed if isinstance(item, Mapping) and is_word(item.get("sku"))]
        return {item["sku"]: http.printable(str(item.get("name", ""))) for item in items}

    def model(self, name: str) -> dict[str, Any] | None:
        """A model; None where there is none of that `owner/name`, or it is somebody else's and private."""
        try:
            return self._object(f"/models/{quote(name)}")
        except NotFound:
            return None

    def newest_version(self, name: str) -> str | None:
        """The id of a model's newest version, where the model itself does not name one."""
        listed = self._object(f"/models/{quote(name)}/versions").get("results")
        first = listed[0] if isinstance(listed, list) and listed else None
        found = first.get("id") if isinstance(first, Mapping) else None
        return str(found) if is_word(found) else None

    def version(self, name: str, version: str) -> dict[str, Any]:
        return self._object(f"/models/{quote(name)}/versions/{quote(version)}")

    def create_model(self, name: str, hardware: str) -> None:
        """Make a private model. That it is there already is no error."""
        owner, _, short = name.partition("/")
        body = {"owner": owner, "name": short, "visibility": "private", "hardware": hardware}
        try:
            http.request("POST", f"{self.url}/models", token=self.token, json=body)
        except ProviderError:
            if self.model(name) is None:  # an earlier try, whose answer was lost, may have made it
                raise

    def upload(self, file: Path) -> str:
        """Send a file by the files API, which keeps it for a day; returns its URL, which only the token opens."""
        with open(file, "rb") as opened:
            form = {"content": ("dataset.zip", opened, "application/zip")}
            answer = http.request(
                "POST",
                f"{self.url}/files",
                token=self.token,
                files=form,
                timeout=_UPLOAD_SECONDS,
                repeatable=True,  # a second copy costs nothing, and is forgotten after a day
            )
        urls = self._checked(answer, "/files").get("urls")
        url = urls.get("get") if isinstance(urls, Mapping) else None
        if not isinstance(url, str) or not http.may_carry_token(url):
            raise self._odd("/files")
        return url

    def train(self, path: str, body: Mapping[str, Any]) -> str:
        """Submit a training, once; returns its id. Raises AnswerLost where nobody knows whether it was accepted."""
        how: dict[str, Any] = {"once": True, "timeout": http.SUBMISSION, "within": http.SUBMISSION}
        answer = http.request("POST", self.url + path, token=self.token, json=body, **how)
        try:
            found = answer.json()["id"]
        except (ValueError, KeyError, TypeError):
            found = None
        if not is_word(found):
            raise http.AnswerLost(f"{self._host} accepted the training without telling its id")
        return str(found)

    def training(self, training_id: str) -> Training:
        """Raises NotFound where there is none of that id."""
        return self._object(f"/trainings/{quote(training_id, safe='')}")

    def pages(self) -> Iterator[Page]:
        """The account's trainings, newest first."""
        path = "/trainings"
        for _ in range(_MOST_PAGES):
            asked = time.time()
            answer = self._get(path)
            page = self._checked(answer, "/trainings")
            results = page.get("results")
            if not isinstance(results, list):
                raise self._odd("/trainings")
            trainings = tuple(item for item in results if isinstance(item, dict) and is_word(item.get("id")))
            yield Page(trainings, _skew(answer, asked))
            following = page.get("next")
            cursor = parse_qs(urlsplit(following).query).get("cursor") if isinstance(following, str) else None
            if not cursor:
                return
            path = f"/trainings?cursor={quote(cursor[0], safe='')}"  # not the URL itself: the token goes there
        raise ProviderError(f"{self._host} lists trainings without an end")

    def cancel(self, training_id: str) -> None:
        """Ask for a training's end; one that has ended stays as it is."""
        path = f"/trainings/{quote(training_id, safe='')}/cancel"
        http.request("POST", self.url + path, token=self.token, repeatable=True)

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or self.url

    def _get(self, path: str) -> Any:
        return http.request("GET", self.url + path, token=self.token)

    def _object(self, path: str) -> dict[str, Any]:
        return self._checked(self._get(path), path)

    def _checked(self, answer: Any, path: str) -> dict[str, Any]:
        found = self._json(answer, path)
        if not isinstance(found, dict):
            raise self._odd(path)
        return found

    def _json(self, answer: Any, path: str) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise self._odd(path) from None

    def _odd(self, path: str) -> ProviderError:
        return ProviderError(
            f"{self._host} answered {path} with something that is not Replicate's API",
            hint="`dreamctl config explain replicate_url` says where it is asked",
        )


def _skew(answer: Any, asked: float) -> float:
    """By the answer's `Date`; a clock that is a day off is none."""
    try:
        skew = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - asked
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return skew if abs(skew) < _LARGEST_SKEW else 0.0


def moment(text: Any) -> datetime.datetime | None:
    """A time as Replicate writes it, with any number of digits of a second; None for what is none."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    if not 2000 < found.year < 3000:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def is_word(value: Any) -> bool:
    """Whether a value that a server sent is an id or a name: short, and harmless in a URL and on a terminal."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", value, re.ASCII) is not None


def written(when: datetime.datetime | None) -> str | None:
    """A time as dreamctl writes it."""
    if when is None:
        return None
    return when.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def checked_id(text: str) -> str:
    """The id itself, from a line. Raises InvalidInput."""
    if not is_word(text):
        raise InvalidInput(f"{http.printable(text)!r} is no id of a training", field="--attach")
    return text
