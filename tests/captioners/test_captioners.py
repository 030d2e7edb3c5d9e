"""What every captioner promises, and what the small ones say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamctl import plugins
from dreamctl.captioners.base import Captioner
from dreamctl.captioners.builtin import BuiltinCaptioner
from dreamctl.captioners.none import NoCaptioner
from dreamctl.captioners.template import TemplateCaptioner, words
from dreamctl.context import Context
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError, InvalidInput
from tests.captioners.endpoint import Endpoint
from tests.fakes import Recorder
from tests.tiny_captioners import write_tiny_florence2, write_tiny_tagger

NAMES = list(plugins.BUILT_IN["captioners"])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "luna"
    folder.mkdir()
    files = [folder / name for name in ("on-the_beach_03.jpg", "IMG_2041.jpg", "Wald.jpg")]
    for file in files:
        Image.new("RGB", (32, 32), "teal").save(file)
    return files


@pytest.mark.parametrize("name", NAMES)
def test_one_caption_for_each_picture_and_none_for_none(
    name: str, pictures: list[Path], tmp_path: Path, endpoint: Endpoint
) -> None:
    if name in ("builtin", "florence2"):
        pytest.importorskip("torch")
    options: dict[str, Callable[[], CaptionOptions]] = {
        "florence2": lambda: CaptionOptions(
            model=str(write_tiny_florence2(tmp_path / "f")), max_tokens=4, device="cpu"
        ),
        "wd14": lambda: CaptionOptions(model=str(write_tiny_tagger(tmp_path / "w"))),
        "openai": lambda: CaptionOptions(model="m", endpoint=endpoint.url),
    }
    captioner: Captioner = plugins.load("captioners", name)(options.get(name, CaptionOptions)())
    assert captioner.name == name
    assert captioner.bill is None
    captions = list(captioner.caption(pictures))
    assert len(captions) == len(pictures) and all(isinstance(text, str) for text in captions)
    assert list(captioner.caption([])) == []


# options


@pytest.mark.parametrize(
    ("name", "given", "says", "hint"),
    [
        ("template", {"model": "x", "task": "y"}, "'template' does not take --model, --task", "it takes --template"),
        ("none", {"prompt": "x"}, "'none' does not take --prompt", "it takes no options"),
        ("wd14", {"max_tokens": 3}, "does not take --max-tokens", "--character-threshold, --exclude"),
        ("florence2", {"exclude": ("solo",)}, "does not take --exclude", "--task"),
    ],
)
def test_an_option_that_a_captioner_does_not_take_is_an_error(
    name: str, given: dict[str, Any], says: str, hint: str
) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        Context.open(None, {}, Recorder()).captioner(name, CaptionOptions(**given))
    assert hint in str(raised.value.hint)


def test_settings_that_a_captioner_has_no_use_for_are_no_error() -> None:
    context = Context.open(None, {"device": "cpu", "caption_endpoint": "http://localhost:1/v1"}, Recorder())
    assert context.captioner("none", CaptionOptions()).name == "none"


def test_each_is_given_the_endpoint_and_token_of_its_own_account(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[CaptionOptions] = []

    class Hungry:
        takes = ()
        account: str | None = None

        def __init__(self, options: CaptionOptions) -> None:
            given.append(options)

    monkeypatch.setattr(plugins, "load", lambda door, name: Hungry)
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefgh1")
    settings = {
        "hub_endpoint": "https://mirror.example",
        "caption_endpoint": "https://models.example/v1",
        "device": "cpu",
    }
    context = Context.open(None, {**settings, "caption_model": "eyes"}, Recorder())
    for account in ("huggingface", "openai", None):
        monkeypatch.setattr(Hungry, "account", account)
        context.captioner("hungry", CaptionOptions())
    assert [(options.endpoint, options.token, options.model, options.device) for options in given] == [
        ("https://mirror.example", "hf_abcdefgh1", None, "cpu"),
        ("https://models.example/v1", "sk-abcdefgh1", "eyes", "cpu"),
        (None, None, None, "cpu"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_is_taken_exists(name: str) -> None:
    assert set(plugins.load("captioners", name).takes) <= set(CaptionOptions.__dataclass_fields__)


def test_a_token_is_in_no_repr() -> None:
    assert "geheim" not in repr(CaptionOptions(token="geheim"))


# the small ones


def test_the_template_knows_names_of_files_and_folders(pictures: list[Path]) -> None:
    assert list(TemplateCaptioner(CaptionOptions()).caption(pictures)) == ["on the beach", "", "Wald"]
    captioner = TemplateCaptioner(CaptionOptions(template="{stem} in {folder}"))
    assert list(captioner.caption(pictures[:1])) == ["on-the_beach_03 in luna"]
    assert words("2024-05-01 Straße_é") == "Straße é"


@pytest.mark.parametrize("template", ["{subject}", "{stem", "{0}", "{stem.x}"])
def test_a_template_with_an_unknown_field_is_refused_before_any_picture(template: str) -> None:
    with pytest.raises(InvalidInput, match="template") as raised:
        TemplateCaptioner(CaptionOptions(template=template))
    assert "{stem}" in str(raised.value.hint)


def test_no_captioner_says_nothing(pictures: list[Path]) -> None:
    assert list(NoCaptioner(CaptionOptions()).caption(pictures)) == ["", "", ""]


def test_without_torch_the_built_in_captioner_says_what_to_install(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or name == "safetensors.torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DreamctlError, match="'torch'") as raised:
        list(BuiltinCaptioner(CaptionOptions()).caption(pictures))
    assert "dreamctl[local]" in str(raised.value.hint)


def test_the_built_in_captioner_names_the_scene_of_a_drawing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dreamctl.builtin.drawing import draw
    from dreamctl.builtin.world import DEMO_IDENTITY, draw_person

    rng = np.random.default_rng(0)
    scenes = {"beach": "on a beach", "night": "at night", "plain blue": "on a blue background"}
    files = []
    for scene in scenes:
        files.append(tmp_path / f"{scene}.png")
        draw(draw_person(rng, DEMO_IDENTITY, scene)).save(files[-1])
    assert list(BuiltinCaptioner(CaptionOptions()).caption(files)) == list(scenes.values())
