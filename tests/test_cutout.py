"""The subject cut out by real rembg and onnxruntime, with a small network for which white things are the subject."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from dreamctl import cutout
from dreamctl.badpictures import UnusablePicture
from dreamctl.cutout import MODEL, MODELS, Cutout, get_ready, parse_model, subject
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.fitting import Rules, fit
from tests.pictures import BLUE, GREEN, RED, STORED, WHITE, mask_of, near, noise, opened, packed, pixel
from tests.profiles import by_profile, display_p3
from tests.tiny_cutters import write_tiny_cutter
from tests.website import Answer, serving

SIZE = (800, 400)
THING = (500, 100, 700, 300)
PLACED = (40, 24, 56, 40)  # of the thing, where the picture is padded into 64 pixels


def ignore(message: str) -> None: ...


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rembg keeps its models, in this test; nothing is fetched."""
    pytest.importorskip("rembg")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    cutout._session.cache_clear()
    return tmp_path / "models"


@pytest.fixture
def model(tmp_path: Path) -> Cutout:
    return parse_model(str(write_tiny_cutter(tmp_path / "tiny.onnx")))


def scene(mode: str = "RGB") -> Image.Image:
    """A white thing on red."""
    image = Image.new("RGB", SIZE, RED)
    image.paste(WHITE, THING)
    return image.convert(mode)


def assert_cut_out(mask: Image.Image, box: tuple[int, int, int, int] = PLACED) -> None:
    """White inside of the box and black outside, but for the pixels of its edge."""
    for x in range(mask.width):
        for y in range(mask.height):
            inside = box[0] + 1 <= x < box[2] - 1 and box[1] + 1 <= y < box[3] - 1
            outside = x < box[0] - 1 or x > box[2] or y < box[1] - 1 or y > box[3]
            value = pixel(mask, x, y)[0]
            assert not inside or value > 250, (x, y, value)
            assert not outside or value < 5, (x, y, value)


@pytest.mark.parametrize("side", [320, 1024])
def test_the_background_becomes_the_colour_and_the_mask_is_the_subject(tmp_path: Path, side: int) -> None:
    model = parse_model(str(write_tiny_cutter(tmp_path / "tiny.onnx", side)))
    get_ready(model, ignore)
    fitted = fit(packed(scene(), "PNG"), Rules(64, BLUE, cutout=model))
    assert fitted.warnings == () and fitted.box == (0, 16, 64, 48)
    assert_cut_out(mask_of(fitted))
    image = opened(fitted)
    assert image.mode == "RGB"
    for x, y, wanted in ((48, 32, WHITE), (20, 32, BLUE), (60, 20, BLUE), (32, 4, BLUE)):
        assert near(pixel(image, x, y), wanted), (x, y)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_background_may_become_transparent_and_is_not_hidden_below(model: Cutout, kind: str) -> None:
    fitted = fit(packed(scene(), "PNG"), Rules(64, None, format=kind, cutout=model))
    image = opened(fitted)
    assert image.mode == "RGBA" and image.getchannel("A").tobytes() == mask_of(fitted).tobytes()
    assert_cut_out(image.getchannel("A"))
    if kind == "png":  # WebP paints what is transparent as it likes
        assert pixel(image, 20, 32) == (*WHITE, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_model_sees_the_picture_upright(
    model: Cutout, monkeypatch: pytest.MonkeyPatch, kind: str, orientation: int
) -> None:
    seen = shown(monkeypatch)
    turned = STORED[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = scene().transpose(turned) if turned is not None else scene()
    fitted = fit(packed(stored, kind, exif=exif), Rules(64, BLUE, cutout=model))
    assert seen[0].size == SIZE and near(pixel(seen[0], 600, 200), WHITE)
    assert_cut_out(mask_of(fitted))


def test_the_model_sees_right_colours_and_enough_pixels(model: Cutout, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shown(monkeypatch)
    red = (200, 60, 60)
    large = Image.new("RGB", (2400, 1200), red)
    large.paste(WHITE, (1000, 200, 1400, 600))
    fit(packed(large, "JPEG", icc_profile=display_p3()), Rules(64, BLUE, cutout=model))
    assert seen[0].size == (1024, 512), "though a JPEG for 64 pixels could be decoded at 300"
    found = pixel(seen[0], 100, 100)
    assert near(found, by_profile(red, "RGB", display_p3())) and not near(found, red)
    transparent = Image.new("RGBA", SIZE, (*GREEN, 0))
    transparent.paste(scene().crop(THING), THING)
    fit(packed(transparent, "PNG"), Rules(64, BLUE, cutout=model))
    assert pixel(seen[1], 10, 10) == BLUE, "what is transparent looks to the model as it will look"


def shown(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """What the model is asked about, from now on."""
    seen: list[Image.Image] = []

    def seeing(picture: Image.Image, model: Cutout) -> Image.Image:
        seen.append(picture)
        return subject(picture, model)

    monkeypatch.setattr("dreamctl.fitting.subject", seeing)
    return seen


def test_what_was_transparent_stays_so(model: Cutout) -> None:
    picture = scene("RGBA")
    picture.paste((255, 255, 255, 0), (600, 0, 800, 400))  # the right half of the thing, and what is beside it
    fitted = fit(packed(picture, "PNG"), Rules(64, BLUE, cutout=model))
    assert_cut_out(mask_of(fitted), (40, 24, 48, 40))
    faint = scene("RGBA")
    faint.putalpha(100)
    kept = fit(packed(faint, "PNG"), Rules(64, BLUE, cutout=model))
    assert kept.warnings and mask_of(kept).getextrema() == (0, 100), "nothing would be left to see"


def test_a_crop_goes_to_the_subject(model: Cutout) -> None:
    picture = scene()
    detail = noise(12, 16, 80).point([value * 150 // 255 for value in range(256)])  # dark, and stronger than the thing
    picture.paste(detail.resize((300, 400), Image.Resampling.NEAREST), (0, 0))
    data = packed(picture, "PNG")
    plain = fit(data, Rules(64, fit="crop", focus="detail"))
    assert plain.crop and plain.crop[0] < 100
    cut = fit(data, Rules(64, fit="crop", focus="detail", cutout=model))
    assert cut.crop and 390 <= cut.crop[0] <= 400  # near enough to the middle of the whole, which counts a little
    assert_cut_out(mask_of(cut), (17, 16, 49, 48))


def test_a_crop_without_the_subject_is_no_picture(model: Cutout) -> None:
    with pytest.raises(UnusablePicture, match="has its subject outside of the crop") as raised:
        fit(packed(scene().crop((0, 0, 720, 200)).resize((1200, 100)), "PNG"), Rules(64, fit="crop", cutout=model))
    assert "--focus detail" in str(raised.value.hint)


def test_where_nothing_is_found_the_background_stays_with_a_warning(model: Cutout) -> None:
    data = packed(Image.new("RGB", (64, 64), RED), "PNG")
    fitted = fit(data, Rules(64, BLUE, cutout=model))
    assert fitted.warnings == ("shows no subject: its background stays (--cutout-model NAME tries another model)",)
    assert (fitted.data, fitted.mask) == (fit(data, Rules(64, BLUE)).data, None)


def test_where_all_is_subject_all_stays(model: Cutout) -> None:
    fitted = fit(packed(Image.new("RGB", (64, 64), WHITE), "PNG"), Rules(64, BLUE, cutout=model))
    assert fitted.warnings == () and mask_of(fitted).getextrema() == (255, 255)
    assert near(pixel(opened(fitted), 2, 2), WHITE)


def test_the_same_file_elsewhere_is_the_same_model(model: Cutout, tmp_path: Path) -> None:
    assert model.file
    moved = tmp_path / "elsewhere" / "tiny.onnx"
    moved.parent.mkdir()
    moved.write_bytes(model.file.read_bytes())
    other = write_tiny_cutter(tmp_path / "other" / "tiny.onnx", 1024)
    assert model.label.startswith("tiny.onnx@") and Rules(64, cutout=model).plain()["cutout"] == model.label
    assert parse_model(str(moved)).label == model.label != parse_model(str(other)).label
    assert parse_model(MODEL).label == MODEL and Rules(64).plain()["cutout"] is None


# models that are not one


@pytest.mark.parametrize(
    ("name", "kind", "says", "hint"),
    [
        ("u2nett", InvalidInput, "'u2nett' is neither a model", "did you mean 'u2net'?"),
        ("sam", InvalidInput, "'sam' is neither a model", "known: "),
        ("gone.onnx", NotFound, "gone.onnx does not exist", "check the path"),
        ("torn.onnx", InvalidInput, "torn.onnx cannot be loaded", "name another file"),
        ("grey.onnx", InvalidInput, r"grey.onnx takes \[1, 1, 320, 320\]", "like U²-Net"),
        ("small.onnx", InvalidInput, r"small.onnx takes \[1, 3, 64, 64\], not .* 320×320 or 1024×1024", "like U²-Net"),
    ],
)
def test_what_does_not_cut_out(tmp_path: Path, name: str, kind: type[DreamctlError], says: str, hint: str) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"no network")
    write_tiny_cutter(tmp_path / "grey.onnx", channels=1)
    write_tiny_cutter(tmp_path / "small.onnx", 64)
    with pytest.raises(kind, match=says) as raised:
        get_ready(parse_model(str(tmp_path / name) if name.endswith(".onnx") else name), ignore)
    assert raised.value.field == "--cutout-model" and hint in str(raised.value.hint)


def test_a_model_that_answers_otherwise(tmp_path: Path) -> None:
    """Its input is right; what comes out is no mask."""
    from tests.tiny_onnx import integer, ints, network, node, value

    file = tmp_path / "tagger.onnx"
    mean = node("ReduceMean", ["picture"], ["mean"], ints("axes", (1, 2, 3)), integer("keepdims", 0))
    file.write_bytes(network([mean], [], value("picture", (1, 3, 320, 320)), value("mean", (1,))))
    with pytest.raises(InvalidInput, match=r"tagger.onnx gives no mask"):
        get_ready(parse_model(str(file)), ignore)


def test_the_names_are_rembg_s_and_compute_here() -> None:
    known = cutout._sessions()
    for name in MODELS:
        assert known[name].is_local() and not known[name].requires_credentials()
    assert MODEL in MODELS


def test_without_rembg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rembg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(DreamctlError, match="--remove-background needs the package 'rembg'") as raised:
        get_ready(parse_model(MODEL), ignore)
    assert raised.value.hint == 'install it: pip install "dreamctl[cutout]"'


# models that are fetched


@pytest.mark.parametrize("place", ["u2net.onnx", "models/u2net/u2net.onnx"])
def test_a_model_that_is_there_is_not_fetched(models: Path, place: str) -> None:
    write_tiny_cutter(models / place)
    told: list[str] = []
    get_ready(parse_model("u2net"), told.append)
    assert told == []
    assert_cut_out(mask_of(fit(packed(scene(), "PNG"), Rules(64, BLUE, cutout=parse_model("u2net")))))


def test_a_damaged_model_is_told_with_the_way_out(models: Path) -> None:
    models.mkdir()
    (models / "u2net.onnx").write_bytes(b"half of it")
    with pytest.raises(InvalidInput, match=r"u2net\.onnx cannot be loaded") as raised:
        get_ready(parse_model("u2net"), ignore)
    assert raised.value.hint == f"remove {models / 'u2net.onnx'}, and it is fetched again"


def test_a_model_that_cannot_be_fetched_may_be_brought_by_hand(models: Path) -> None:
    told: list[str] = []
    with pytest.raises(
        ProviderError, match="the model u2net could not be fetched: its host cannot be reached"
    ) as raised:
        get_ready(parse_model("u2net"), told.append)
    folder = models / "models" / "u2net"
    assert told == [f"fetching the model u2net into {folder}"]
    assert f"to {folder / 'u2net.onnx'}" in str(raised.value.hint) and "https://github.com/" in str(raised.value.hint)
    write_tiny_cutter(folder / "u2net.onnx")
    get_ready(parse_model("u2net"), ignore)


def test_fetching_is_told_by_us_alone(models: Path, user: Path) -> None:
    picture = user / "a.png"
    scene().save(picture)
    command = [sys.executable, "-m", "dreamctl", "prepare", str(picture), "--remove-background", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 5 and json.loads(done.stdout)["error"]["field"] == "--cutout-model"
    told, error, hint = done.stderr.splitlines()
    assert told.startswith("fetching the model u2net into") and error.startswith("error: the model u2net could not")
    assert hint.startswith("  bring it by hand")


def test_a_fetched_model_is_checked_and_kept(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    body = write_tiny_cutter(tmp_path / "tiny.onnx").read_bytes()
    real, ours = pooch.retrieve, f"md5:{hashlib.md5(body).hexdigest()}"
    with serving() as site:
        url = site.put("/u2net.onnx", Answer(body))

        def retrieve(known: str | None) -> Callable[..., Any]:
            return lambda _, digest, **options: real(url, known or digest, **options)

        monkeypatch.setattr(pooch, "retrieve", retrieve(None))
        with pytest.raises(ProviderError, match=r"could not be fetched: .* hash"):
            get_ready(parse_model("u2net"), ignore)
        assert [path for path in models.rglob("*") if path.is_file()] == [], "what is not the model is not kept"
        monkeypatch.setattr(pooch, "retrieve", retrieve(ours))
        get_ready(parse_model("u2net"), ignore)
    assert (models / "models" / "u2net" / "u2net.onnx").read_bytes() == body
