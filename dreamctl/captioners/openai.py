"""Any vision model behind the interface that OpenAI's is known by: vLLM, Ollama, LM Studio, or OpenAI itself."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dreamctl import http
from dreamctl.captioners.ahead import ahead
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import CredentialsError, InvalidInput, ProviderError
from dreamctl.images import read_picture

ENDPOINT = "https://api.openai.com/v1"
PROMPT = (
    "Describe this picture in one or two plain sentences for the training of an image model: what is there, where, in "
    "what light and style. Begin with the description itself."
)
_MAX_TOKENS = 300
_TIMEOUT = 120.0  # seconds; a large model on a CPU takes its time
_SIDE = 1024  # pixels; vision models look at no more
_AT_A_TIME = 4
_RETRIES = 4
_NAMED = 8


class OpenAICaptioner:
    """Asks an endpoint about each picture, a few at a time. One without a price is one of this computer or network."""

    name = "openai"
    takes = ("model", "prompt", "max_tokens", "batch_size", "timeout")
    account = "openai"

    def __init__(self, options: CaptionOptions, sleep: Callable[[float], None] = time.sleep) -> None:
        self._options = options
        self._sleep = sleep
        self._url = (options.endpoint or ENDPOINT).rstrip("/")
        self._host = urlsplit(self._url).hostname or ""
        self._token = options.token if http.may_carry_token(self._url) else None

    @property
    def bill(self) -> str | None:
        """The host, unless it is an address of this computer or of a private network."""
        return None if http.local_network(self._host) else self._host

    def caption(self, pictures: Sequence[Path]) -> Iterator[str | None]:
        """The model's answers. 408, 429, 5xx, broken connections and time-outs are tried again with growing pauses.

        Raises CredentialsError, NotFound (an unknown model), ProviderError, UnusablePicture; after the last picture a
        ProviderError that names those which the model refused or had no words for.
        """
        if not pictures:
            return
        if self._url.startswith(ENDPOINT) and not self._token:
            raise CredentialsError(
                f"there is no token for {self._host}",
                hint="`dreamctl auth login openai`, or set OPENAI_API_KEY; --caption-endpoint names another endpoint",
            )
        model = self._options.model or self._only_model()
        without: list[str] = []
        answers = ahead(lambda path: self._ask(model, path), pictures, self._options.batch_size or _AT_A_TIME)
        for picture, (text, reason) in zip(pictures, answers, strict=True):
            if not text:
                without.append(f"{picture.name} ({reason})")
            yield text or None
        if without:
            more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
            raise ProviderError(
                f"{self._host} gave no caption for {', '.join(without[:_NAMED])}{more}",
                hint="the others are captioned; write these by hand with `dreamctl caption --edit`, or try again",
            )

    def _only_model(self) -> str:
        """The model of an endpoint that serves one. Raises InvalidInput that names several."""
        data = self._read(self._request("GET", "/models"), "list of models")
        rows = data.get("data") if isinstance(data, dict) else None
        names = [str(row["id"]) for row in rows or () if isinstance(row, dict) and row.get("id")]
        if len(names) == 1:
            return names[0]
        shown = http.printable(", ".join(names[:_NAMED])) + (" …" if len(names) > _NAMED else "")
        raise InvalidInput(
            f"no model of {self._host} is chosen",
            field="--model",
            hint=f"it serves {shown or 'none'}: --model NAME, or `dreamctl config set caption_model NAME`",
        )

    def _ask(self, model: str, picture: Path) -> tuple[str, str]:
        """The caption, or "" and why there is none."""
        content = [
            {"type": "text", "text": self._options.prompt or PROMPT},
            {"type": "image_url", "image_url": {"url": _data_url(picture)}},
        ]
        tokens = self._options.max_tokens or _MAX_TOKENS
        # OpenAI's own newer models refuse the older name and any temperature; other servers know these alone.
        openai = self._url.startswith(ENDPOINT)
        limits = {"max_completion_tokens": tokens} if openai else {"max_tokens": tokens, "temperature": 0}
        body = {"model": model, "messages": [{"role": "user", "content": content}], **limits}
        answer = self._read(self._request("POST", "/chat/completions", body), f"answer about {picture.name}")
        try:
            choice = answer["choices"][0]
            message, ending = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content") or "", message.get("refusal")
            if not isinstance(text, str):
                raise TypeError
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._nonsense(f"answer about {picture.name}") from None
        caption = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        if refusal or ending == "content_filter":
            return "", f"refused: {http.printable(str(refusal))[:120]}" if refusal else "refused"
        if not caption:
            return "", "no words within --max-tokens" if ending == "length" else "an empty answer"
        return caption, ""

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        return http.request(
            method,
            self._url + path,
            token=self._token,
            json=body,
            timeout=self._options.timeout or _TIMEOUT,
            retries=_RETRIES,
            repeatable=True,  # a second answer may cost as much as the first, but makes nothing that stays
            sleep=self._sleep,
        )

    def _read(self, answer: Any, what: str) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise self._nonsense(what) from None

    def _nonsense(self, what: str) -> ProviderError:
        return ProviderError(
            f"{self._host}: its {what} is not what an OpenAI-compatible endpoint says",
            hint=f"check the setting caption_endpoint: {http.redact(self._url)} (most end in /v1)",
        )


def _data_url(picture: Path) -> str:
    """The picture as a JPEG in a URL, no larger than vision models look at."""
    image = read_picture(picture)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
