"""`dreamctl prepare --remove-background` as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamctl import cutout
from dreamctl.cli.app import main
from tests.pictures import BLUE, RED, WHITE, near, pixel
from tests.tiny_cutters import write_tiny_cutter

PREPARE = ["prepare", "original", "--size", "64", "--background", "#0000fe", "--json"]


@pytest.fixture
def original(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five white things on red, and nothing but red."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cutout._session.cache_clear()
    folder = user / "original"
    folder.mkdir()
    for number in range(5):
        image = Image.new("RGB", (96, 64), RED)
        image.paste(WHITE, (8 + 8 * number, 16, 40 + 8 * number, 48))
        image.save(folder / f"p{number}.png")
    Image.new("RGB", (96, 64), RED).save(folder / "wall.png")
    return folder


@pytest.fixture
def model(user: Path) -> str:
    pytest.importorskip("rembg")
    return str(write_tiny_cutter(user / "tiny.onnx"))


def prepared(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    assert main([*PREPARE, *words]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_the_pictures_are_cut_out_once(original: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = prepared(capsys)
    flags = ("--remove-background", "--cutout-model", "tiny.onnx")
    report, err = prepared(capsys, *flags)
    assert len(report["made"]) == 6, "another rule makes all again"
    assert "warning: original/wall.png shows no subject: its background stays" in err
    dataset = Path(report["dataset"])
    assert json.loads((dataset / "dataset.json").read_text())["cutout"].startswith("tiny.onnx@")
    image, mask = Image.open(dataset / "p0.jpg"), Image.open(dataset / "masks" / "p0.png")
    assert near(pixel(image, 16, 32), WHITE) and near(pixel(image, 50, 32), BLUE) and near(pixel(image, 5, 5), BLUE)
    assert [pixel(mask, *at)[0] for at in ((16, 32), (50, 32), (5, 5))] == [255, 0, 0]
    assert near(pixel(Image.open(dataset / "wall.jpg"), 32, 32), RED)

    again, err = prepared(capsys, *flags)
    assert (again["made"], again["digest"]) == ([], report["digest"])
    write_tiny_cutter(Path(model), 1024)
    assert len(prepared(capsys, *flags)[0]["made"]) == 6, "another model makes all again"
    plain, _ = prepared(capsys)
    assert len(plain["made"]) == 6 and plain["digest"] == first["digest"]


def test_many_pictures_are_cut_out_in_processes(original: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    few, _ = prepared(capsys, "--remove-background", "--cutout-model", model, "--out", "few")
    for number in range(5):
        (original / f"p{number}.png").rename(original / f"q{number}.png")
        for twin in "ab":
            (original / f"q{number}{twin}.png").write_bytes((original / f"q{number}.png").read_bytes())
    report, _ = prepared(capsys, "--remove-background", "--cutout-model", model, "--out", "many")
    made = {picture["file"]: picture["sha256"] for picture in report["pictures"]}
    assert len(report["made"]) == 16
    assert {made[f"q{number}.jpg"] for number in range(5)} == {
        picture["sha256"] for picture in few["pictures"] if picture["file"] != "wall.jpg"
    }, "a worker cuts out as the parent does"


def test_a_dataset_of_before_there_was_the_key_is_not_made_again(
    original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = prepared(capsys)
    assert "cutout" not in json.loads((Path(report["dataset"]) / "dataset.json").read_text())
    assert prepared(capsys)[0]["made"] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--cutout-model", "u2net"], 2, "--cutout-model is given, and no background is to be removed"),
        (["--remove-background", "--cutout-model", "u2nett"], 2, "'u2nett' is neither a model"),
        (["--remove-background", "--cutout-model", "gone.onnx"], 3, "gone.onnx does not exist"),
        (["--remove-background"], 5, "the model u2net could not be fetched"),
    ],
)
def test_errors_come_before_any_picture(
    original: Path, user: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    pytest.importorskip("rembg")
    for number in range(9):  # enough for processes
        (original / f"more{number}.png").write_bytes((original / "p0.png").read_bytes())
    assert main(["prepare", "original", "--size", "64", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count(says) == 1 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("  "), "a hint"
    assert not (user / "processed").exists()


def test_without_the_extra_it_says_what_to_install(
    original: Path, user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rembg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rembg", None)
    assert main(["prepare", "original", "--remove-background"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: --remove-background needs the package '")
    assert err.endswith('  install it: pip install "dreamctl[cutout]"\n')
    assert not (user / "processed").exists()


def test_nothing_of_it_is_imported_unless_asked_for(original: Path) -> None:
    program = (
        "import sys\nfrom dreamctl.cli.app import main\n"
        "code = main(['prepare', 'original', '--size', '64', '-q'])\n"
        "print(code, sorted({'rembg', 'onnxruntime', 'numba', 'skimage', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
