"""What every captioner promises, and what each says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamctl import plugins
from dreamctl.captioners.base import Captioner
from dreamctl.captioners.builtin import BuiltinCaptioner
from dreamctl.captioners.none import NoCaptioner
from dreamctl.captioners.template import TemplateCaptioner, words
from dreamctl.errors import DreamctlError, InvalidInput


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "luna"
    folder.mkdir()
    files = [folder / name for name in ("on-the_beach_03.jpg", "IMG_2041.jpg", "Wald.jpg")]
    for file in files:
        Image.new("RGB", (32, 32), "teal").save(file)
    return files


@pytest.mark.parametrize("name", list(plugins.BUILT_IN["captioners"]))
def test_one_caption_for_each_picture_and_none_for_none(name: str, pictures: list[Path]) -> None:
    if name == "builtin":
        pytest.importorskip("torch")
    captioner: Captioner = plugins.load("captioners", name)()
    assert captioner.name == name
    captions = list(captioner.caption(pictures))
    assert len(captions) == len(pictures) and all(isinstance(text, str) for text in captions)
    assert list(captioner.caption([])) == []


def test_the_template_knows_names_of_files_and_folders(pictures: list[Path]) -> None:
    assert list(TemplateCaptioner().caption(pictures)) == ["on the beach", "", "Wald"]
    assert list(TemplateCaptioner("{stem} in {folder}").caption(pictures[:1])) == ["on-the_beach_03 in luna"]
    assert words("2024-05-01 Straße_é") == "Straße é"


@pytest.mark.parametrize("template", ["{subject}", "{stem", "{0}", "{stem.x}"])
def test_a_template_with_an_unknown_field_is_refused(template: str, pictures: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="template") as raised:
        list(TemplateCaptioner(template).caption(pictures))
    assert "{stem}" in str(raised.value.hint)


def test_no_captioner_says_nothing(pictures: list[Path]) -> None:
    assert list(NoCaptioner().caption(pictures)) == ["", "", ""]


def test_without_torch_the_built_in_captioner_says_what_to_install(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or name == "safetensors.torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DreamctlError, match="'torch'") as raised:
        list(BuiltinCaptioner().caption(pictures))
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
    assert list(BuiltinCaptioner().caption(files)) == list(scenes.values())
