"""The OpenAI-compatible captioner against a real server on loopback: order, patience, money, and nonsense."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamctl.captioners.openai import OpenAICaptioner
from dreamctl.cli.app import main
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from tests.captioners.endpoint import Answer, Endpoint, Request, hang, said
from tests.fakes import write_dataset


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six grey pictures, each of a shade of its own."""
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number,) * 3).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(6)]


SHADES = [f"shade {40 * number}" for number in range(6)]


def captioner(endpoint: Endpoint, pauses: list[float] | None = None, **options: Any) -> OpenAICaptioner:
    given = CaptionOptions(**{"endpoint": endpoint.url, "model": "eyes", **options})
    return OpenAICaptioner(given, sleep=(pauses if pauses is not None else []).append)


def test_captions_come_in_order_however_the_answers_do(endpoint: Endpoint, pictures: list[Path]) -> None:
    first, third = threading.Event(), threading.Event()

    def answer(request: Request) -> Answer:
        if request.shade == 0:  # is asked first, and answered after the third
            first.set()
            third.wait(60)
        elif request.shade == 80:
            first.wait(60)
            third.set()
        return said(f"  shade\n{request.shade}\x07 ")

    endpoint.answer = answer
    assert list(captioner(endpoint).caption(pictures)) == SHADES
    assert 2 <= endpoint.most_at_once <= 4


def test_one_at_a_time_on_request(endpoint: Endpoint, pictures: list[Path]) -> None:
    assert list(captioner(endpoint, batch_size=1).caption(pictures)) == SHADES
    assert endpoint.most_at_once == 1


def test_what_is_asked(endpoint: Endpoint, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "white").save(tmp_path / "large.jpg")
    options: dict[str, Any] = {"prompt": "What is it?", "max_tokens": 50, "token": "sk-geheim"}
    list(captioner(endpoint, **options).caption([tmp_path / "large.jpg"]))
    (request,) = endpoint.seen
    assert (request.path, request.token, request.size) == ("/v1/chat/completions", "Bearer sk-geheim", (1024, 512))
    (message,) = request.body["messages"]
    assert (request.body["model"], request.body["max_tokens"], request.body["temperature"]) == ("eyes", 50, 0)
    assert message["role"] == "user" and message["content"][0] == {"type": "text", "text": "What is it?"}
    assert message["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


# the model


def test_the_only_model_of_an_endpoint_needs_no_name(endpoint: Endpoint, pictures: list[Path]) -> None:
    assert list(captioner(endpoint, model=None).caption(pictures)) == SHADES
    assert endpoint.seen[-1].body["model"] == "eyes"


@pytest.mark.parametrize(
    ("models", "hint"), [(["eyes", "ears"], "it serves eyes, ears: --model"), ([], "it serves none")]
)
def test_of_several_models_one_must_be_named(
    endpoint: Endpoint, pictures: list[Path], models: list[str], hint: str
) -> None:
    endpoint.models = models
    with pytest.raises(InvalidInput, match=r"no model of 127\.0\.0\.1 is chosen") as raised:
        list(captioner(endpoint, model=None).caption(pictures))
    assert hint in str(raised.value.hint)


def test_a_model_that_is_not_there(endpoint: Endpoint, pictures: list[Path]) -> None:
    endpoint.answer = lambda request: (404, {}, '{"error": {"message": "model \'gone\' not found, pull it first"}}')
    with pytest.raises(NotFound, match="model 'gone' not found, pull it first"):
        list(captioner(endpoint, model="gone").caption(pictures))


# patience


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again_with_growing_pauses(
    endpoint: Endpoint, pictures: list[Path], status: int
) -> None:
    endpoint.answer = lambda request: (status, {}, "{}") if request.number < 3 else said(f"shade {request.shade}")
    pauses: list[float] = []
    assert list(captioner(endpoint, pauses, batch_size=1).caption(pictures[:2])) == SHADES[:2]
    assert len(endpoint.seen) == 6 and 0 < pauses[0] < pauses[1] and 0 < pauses[2] < pauses[3]


def test_the_endpoint_says_how_long_to_wait(endpoint: Endpoint, pictures: list[Path]) -> None:
    busy: Answer = (429, {"Retry-After": "7"}, '{"error": {"message": "slow down"}}')
    endpoint.answer = lambda request: busy if request.number == 1 else said("calm")
    pauses: list[float] = []
    assert list(captioner(endpoint, pauses).caption(pictures[:1])) == ["calm"]
    assert pauses == [7.0]


def test_an_answer_that_does_not_come_is_asked_for_again(endpoint: Endpoint, pictures: list[Path]) -> None:
    endpoint.answer = lambda request: hang() if request.number == 1 else said("in time")
    pauses: list[float] = []
    # The second answer may take longer than the time-out on a busy computer, and is then asked for again too.
    assert list(captioner(endpoint, pauses, timeout=1.0).caption(pictures[:1])) == ["in time"]
    assert 1 <= len(pauses) == len(endpoint.seen) - 1


def test_patience_ends(endpoint: Endpoint, pictures: list[Path]) -> None:
    endpoint.answer = lambda request: (500, {}, '{"error": "out of memory"}')
    with pytest.raises(ProviderError, match=r"answered 500 .*: out of memory"):
        list(captioner(endpoint).caption(pictures[:1]))
    assert len(endpoint.seen) == 5


def test_captions_before_the_failure_are_given_first(endpoint: Endpoint, pictures: list[Path]) -> None:
    endpoint.answer = lambda request: (500, {}, "") if request.shade == 120 else said(f"shade {request.shade}")
    captions = captioner(endpoint).caption(pictures)
    assert [next(captions) for _ in range(3)] == SHADES[:3]
    with pytest.raises(ProviderError):
        next(captions)


# nonsense


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": 7}}]}',
    ],
)
def test_an_answer_that_makes_no_sense(endpoint: Endpoint, pictures: list[Path], text: str) -> None:
    endpoint.answer = lambda request: (200, {}, text)
    with pytest.raises(ProviderError, match=r"its answer about 0\.png is not what an OpenAI-compatible") as raised:
        list(captioner(endpoint).caption(pictures[:1]))
    assert "/v1" in str(raised.value.hint) and len(endpoint.seen) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said(""), "an empty answer"),
        (said(None), "an empty answer"),
        (said(None, refusal="I cannot look at this."), "refused: I cannot look at this."),
        (said("", finish_reason="content_filter"), "refused"),
        (said("", finish_reason="length"), "no words within --max-tokens"),
    ],
)
def test_a_picture_without_a_caption_is_named_after_the_others_are_done(
    endpoint: Endpoint, pictures: list[Path], answer: Answer, reason: str
) -> None:
    endpoint.answer = lambda request: answer if request.shade == 40 else said(f"shade {request.shade}")
    captions = captioner(endpoint).caption(pictures)
    assert [next(captions) for _ in pictures] == [SHADES[0], None, *SHADES[2:]]
    with pytest.raises(ProviderError) as raised:
        next(captions)
    assert raised.value.message == f"127.0.0.1 gave no caption for 1.png ({reason})"
    assert "--edit" in str(raised.value.hint)


def test_a_refused_token_is_one_clear_error(endpoint: Endpoint, pictures: list[Path]) -> None:
    endpoint.answer = lambda request: (401, {}, '{"error": {"message": "Incorrect API key provided: sk-geheim"}}')
    with pytest.raises(CredentialsError, match=r"refused the token \(401\)") as raised:
        list(captioner(endpoint, token="sk-geheim").caption(pictures))
    assert "geheim" not in str(raised.value)


def test_a_broken_picture_is_an_error_of_its_own(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DreamctlError, match="picture"):
        list(captioner(endpoint).caption([tmp_path / "bad.png"]))
    assert endpoint.seen == []


# the command


def test_the_command_asks_the_configured_endpoint_and_goes_on_after_a_failure(
    endpoint: Endpoint, user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(user / "processed", count=6)
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number,) * 3).save(folder.path / f"{number:02}.jpg")
        folder.write_caption(f"{number:02}.jpg", "")
    monkeypatch.setenv("DREAMCTL_CAPTION_ENDPOINT", endpoint.url)
    monkeypatch.setenv("DREAMCTL_CAPTION_MODEL", "eyes two")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-geheim1234567890")
    endpoint.answer = lambda request: (400, {}, '{"error": "no"}') if request.shade == 120 else said(str(request.shade))
    assert main(["caption", "--captioner", "openai", "--batch-size", "1"]) == 5
    assert list(folder.captions().values()) == ["0", "40", "80", "", "", ""]
    assert "geheim" not in "".join(capsys.readouterr())
    endpoint.answer = lambda request: said(f"again {request.shade}")
    assert main(["caption", "--captioner", "openai", "--model", "eyes", "--trigger", "sks"]) == 0
    assert list(folder.captions().values())[2:4] == ["sks, 80", "sks, again 120"]
    assert {request.token for request in endpoint.seen} == {"Bearer sk-geheim1234567890"}
    assert [request.body["model"] for request in endpoint.seen] == ["eyes two"] * 4 + ["eyes"] * 3


# whose money and whose token


@pytest.mark.parametrize(
    ("url", "bill"),
    [
        (None, "api.openai.com"), ("https://models.example/v1", "models.example"), ("http://localhost:11434", None),
        ("http://127.0.0.1:8000/v1", None), ("http://[::1]:8000/v1", None), ("http://192.168.1.5:1234/v1", None),
        ("https://10.1.2.3/v1", None), ("https://8.8.8.8/v1", "8.8.8.8"), ("https://172.32.0.1/v1", "172.32.0.1"),
    ],
)  # fmt: skip
def test_only_this_computer_and_private_networks_are_free(url: str | None, bill: str | None) -> None:
    assert OpenAICaptioner(CaptionOptions(endpoint=url)).bill == bill


def test_openai_itself_wants_a_token_before_anything_is_sent(pictures: list[Path]) -> None:
    with pytest.raises(CredentialsError, match=r"there is no token for api\.openai\.com") as raised:
        list(OpenAICaptioner(CaptionOptions(model="m")).caption(pictures))
    assert "dreamctl auth login openai" in str(raised.value.hint)


def test_no_token_goes_over_plain_http_to_another_computer() -> None:
    assert OpenAICaptioner(CaptionOptions(endpoint="http://192.168.1.5/v1", token="sk-geheim"))._token is None
    assert OpenAICaptioner(CaptionOptions(endpoint="http://localhost/v1", token="sk-geheim"))._token == "sk-geheim"
