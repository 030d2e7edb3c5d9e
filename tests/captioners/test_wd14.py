"""The tagger on a small ONNX model that finds the right tags only where colours, range and margins are right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamctl.captioners.wd14 import Wd14Captioner
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError, InvalidInput, ProviderError
from tests.tiny_captioners import TAGS, write_tiny_tagger


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return write_tiny_tagger(tmp_path / "tagger")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A blue square, a green square, and a blue strip."""
    shapes = {"blue": ((40, 40), (0, 0, 255)), "green": ((20, 20), (0, 255, 0)), "strip": ((40, 20), (0, 0, 255))}
    for name, (size, colour) in shapes.items():
        Image.new("RGB", size, colour).save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in shapes]


def tags(model: Path | str, pictures: list[Path], **options: object) -> list[str]:
    given = CaptionOptions(model=str(model), device="cpu", **options)  # type: ignore[arg-type]
    return list(Wd14Captioner(given).caption(pictures))


def test_characters_first_then_the_surest_and_never_the_rating(model: Path, pictures: list[Path]) -> None:
    assert tags(model, pictures) == ["luna (cat), dark blue, ^_^", "pale green, ^_^", "luna (cat), ^_^, dark blue"]


def test_thresholds(model: Path, pictures: list[Path]) -> None:
    assert tags(model, pictures[2:], threshold=0.6) == ["luna (cat), ^_^"], "half of the strip's square is white"
    assert tags(model, pictures[2:], character_threshold=0.99) == ["^_^, dark blue"]
    assert tags(model, pictures[:1], threshold=1.0, character_threshold=1.0) == [""]
    assert "pale green" in tags(model, pictures[:1], threshold=0.0)[0], "0 is a threshold too"


@pytest.mark.parametrize("word", ["dark_blue", "Dark Blue", " dark blue "])
def test_excluded_tags(model: Path, pictures: list[Path], word: str) -> None:
    assert tags(model, pictures[:1], exclude=(word, "^_^")) == ["luna (cat)"]


def test_what_is_not_a_tagger(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    listing = (model / "selected_tags.csv").read_text()
    for text, says in (
        (listing.replace("name", "label"), "not a table with the columns name and category"),
        ("\n".join(listing.splitlines()[:-1]), f"knows {len(TAGS)} tags and selected_tags.csv lists {len(TAGS) - 1}"),
    ):
        (model / "selected_tags.csv").write_text(text)
        with pytest.raises(InvalidInput, match=says):
            tags(model, pictures)
    (model / "selected_tags.csv").write_text(listing)
    (model / "model.onnx").write_bytes(b"no network")
    with pytest.raises(InvalidInput, match=r"model\.onnx cannot be loaded"):
        tags(model, pictures)
    (model / "model.onnx").unlink()
    with pytest.raises(InvalidInput, match=r"is not a WD tagger: model\.onnx is missing") as raised:
        tags(model, pictures)
    assert "SmilingWolf/wd-vit-tagger-v3" in str(raised.value.hint)


def test_a_device_that_this_onnxruntime_does_not_know(model: Path, pictures: list[Path]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it knows CUDA")
    with pytest.raises(InvalidInput, match="cannot compute on cuda:1"):
        list(Wd14Captioner(CaptionOptions(model=str(model), device="cuda:1")).caption(pictures))


def test_the_hubs_models_are_looked_for_in_the_cache_when_offline(pictures: list[Path]) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ProviderError, match="owner/gone is not in the local cache"):
        tags("owner/gone", pictures)


def test_without_onnxruntime_it_says_what_to_install(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DreamctlError, match="needs the package 'onnxruntime'") as raised:
        tags("somewhere", pictures)
    assert "dreamctl[wd14]" in str(raised.value.hint)
