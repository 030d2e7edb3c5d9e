"""Florence-2 on a small model of the real architecture with its real processor, alone and in batches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamctl import hub
from dreamctl.captioners import florence2
from dreamctl.captioners.florence2 import TASKS, Florence2Captioner
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from tests.fakes import write_dataset
from tests.pictures import noise
from tests.tiny_captioners import write_tiny_florence2

pytest.importorskip("torch")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_florence2(tmp_path_factory.mktemp("florence2"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five different pictures of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        noise(60 + 10 * number, 80, 10 + 20 * number, number).convert("RGB").save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def captions(model: Path, pictures: list[Path], **options: object) -> list[str]:
    given = CaptionOptions(**{"model": str(model), "device": "cpu", "max_tokens": 12, **options})  # type: ignore[arg-type]
    return list(Florence2Captioner(given).caption(pictures))


def test_a_batch_says_what_each_picture_alone_says(model: Path, pictures: list[Path]) -> None:
    alone = captions(model, pictures, batch_size=1)
    assert captions(model, pictures, batch_size=2) == captions(model, pictures, batch_size=5) == alone
    assert len(set(alone)) > 1, "it looks at the pictures"
    assert all(text == " ".join(text.split()) and not set("<>") & set(text) for text in alone)


def test_the_question_counts(model: Path, pictures: list[Path]) -> None:
    free = captions(model, pictures[:2])
    assert free == captions(model, pictures[:2], prompt=florence2.PROMPT)
    answers = {task: tuple(captions(model, pictures[:2], task=task)) for task in TASKS}
    assert len({*answers.values(), tuple(free)}) == 4
    assert captions(model, pictures[:2], task="<DETAILED_CAPTION>") == list(answers["detailed"])


@pytest.mark.parametrize(
    ("options", "says", "hint"),
    [
        ({"task": "detail"}, "--task 'detail' is not known", "did you mean 'detailed'?"),
        ({"task": "caption", "prompt": "What?"}, "exclude each other", "leave one of them out"),
        ({"prompt": "<OD> of cats"}, "holds the name of a task", "--task caption"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_loaded(options: dict[str, str], says: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        Florence2Captioner(CaptionOptions(**options))  # type: ignore[arg-type]
    assert hint in str(raised.value.hint)


def test_a_free_prompts_marks_of_places_are_left_out(model: Path, pictures: list[Path]) -> None:
    loaded = Florence2Captioner(CaptionOptions(model=str(model), device="cpu"))._load()
    with Image.open(pictures[0]) as picture:
        said = loaded._plain("<s>a cat<loc_12><loc_3> on a mat</s>", "Where is it?", picture)
    assert said == "a cat on a mat"


def test_folders_that_hold_something_else(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no model"):
        captions(tmp_path, pictures)
    config = json.loads((model / "config.json").read_text())
    for change, says in (
        ({"model_type": "blip"}, "a model of type 'blip', not Florence-2"),
        ({"auto_map": {"AutoConfig": "x"}}, "brings code of its own, which is never run"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InvalidInput, match=says) as raised:
            captions(tmp_path, pictures)
        assert "florence-community" in str(raised.value.hint)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        captions(tmp_path, pictures)


def test_a_device_that_is_not_here(model: Path, pictures: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="device cuda:99 is not here"):
        captions(model, pictures, device="cuda:99")


def test_a_broken_picture_stops_at_its_place(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    said = Florence2Captioner(CaptionOptions(model=str(model), device="cpu", max_tokens=3)).caption(
        [pictures[0], broken]
    )
    assert isinstance(next(said), str)
    with pytest.raises(DreamctlError, match="picture"):
        next(said)


def test_without_the_packages_it_says_what_to_install(
    model: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DreamctlError, match="needs the package 'transformers'") as raised:
        captions(model, pictures)
    assert "dreamctl[local]" in str(raised.value.hint)


# the hub


def test_what_neither_folder_nor_hub_has(pictures: list[Path]) -> None:
    with pytest.raises(NotFound, match="is not a folder, nor a hub id"):
        captions(Path("./gone"), pictures)
    with pytest.raises(ProviderError, match=r"owner/gone is not in the local cache") as raised:
        captions(Path("owner/gone"), pictures)
    assert raised.value.field == "--model"


def test_only_the_hub_knows_revisions(model: Path, pictures: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="only the hub knows revisions"):
        captions(model, pictures, revision="main")


def test_a_cached_model_works_offline_by_branch_and_by_commit(
    model: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub._snapshot_download
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repository = cache / "models--owner--tiny"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert hub.model_folder("owner/tiny", ["*.json"]) == repository / "snapshots" / COMMIT
    assert captions(Path("owner/tiny"), pictures[:1], revision=COMMIT) == captions(model, pictures[:1])


# the command


def test_the_command_captions_a_dataset(user: Path, model: Path) -> None:
    folder = write_dataset(user / "processed", count=3)
    for number in range(3):
        folder.write_caption(f"{number:02}.jpg", "")
    words = ["caption", "--captioner", "florence2", "--model", str(model), "--device", "cpu", "--max-tokens", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "dreamctl", *words, "--trigger", "sks", "--json"],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    progress = [line.startswith("caption ") for line in done.stderr.splitlines()]  # a heartbeat where it takes minutes
    assert done.returncode == 0 and all(progress), done.stderr
    report = json.loads(done.stdout)
    assert report["captioner"] == "florence2" and len(report["written"]) == 3
    assert report["captions"] == folder.captions()
    assert all(text.startswith("sks, ") and len(text) > 5 for text in folder.captions().values())
