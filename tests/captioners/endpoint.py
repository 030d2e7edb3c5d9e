"""An OpenAI-compatible endpoint on loopback: a real HTTP server that looks at the picture and answers as told."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Answer = tuple[int, dict[str, str], str]


@dataclass
class Request:
    """What came: `shade` and `size` are the picture's, `number` counts the requests about this shade."""

    path: str
    token: str | None
    body: dict[str, Any] = field(default_factory=dict)
    shade: int = -1
    size: tuple[int, int] = (0, 0)
    number: int = 0


def said(text: Any, **message: Any) -> Answer:
    """An answer as chat completions give it."""
    ending = message.pop("finish_reason", "stop")
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": ending}
    return 200, {"Content-Type": "application/json"}, json.dumps({"object": "chat.completion", "choices": [choice]})


class Endpoint:
    """The server; `answer` decides what each request about a picture gets, `models` what it serves."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Answer] = lambda request: said(f"shade {request.shade}")
        self.models = ["eyes"]
        self.seen: list[Request] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answered(self, request: Request) -> Answer:
        if request.path == "/v1/models":
            return 200, {}, json.dumps({"object": "list", "data": [{"id": name} for name in self.models]})
        if request.path != "/v1/chat/completions":
            return 404, {}, "{}"
        content = request.body["messages"][0]["content"]
        picture = Image.open(io.BytesIO(base64.b64decode(content[1]["image_url"]["url"].split(",")[1])))
        request.size, request.shade = picture.size, round(picture.convert("L").getpixel((1, 1)) / 10) * 10  # type: ignore[operator]
        with self._lock:
            request.number = sum(other.shade == request.shade for other in self.seen)
        return self.answer(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = Request(self.path, self.headers.get("authorization"), json.loads(body) if body else {})
                with endpoint._lock:
                    endpoint.seen.append(request)
                    endpoint._now += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._now)
                try:
                    status, headers, text = endpoint._answered(request)
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client had waited long enough
                finally:
                    with endpoint._lock:
                        endpoint._now -= 1

            do_GET = do_POST = answer  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def hang(seconds: float = 5.0) -> Answer:
    """An answer that comes too late."""
    time.sleep(seconds)
    return said("late")
