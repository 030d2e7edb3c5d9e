"""`config validate` on files for other trainers: every problem at once, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamctl.workflows.validate import Checked, validate
from tests.fakes import write_pictures


def checked(user: Path, name: str, text: str) -> Checked:
    (user / name).write_text(text, encoding="utf-8")
    (found,) = validate([user / name], user)
    assert all(problem.startswith(str(user / name)) for problem in found.problems)
    return found


def problems(user: Path, name: str, text: str) -> list[str]:
    start = f"{user / name}: "
    return [problem.removeprefix(start) for problem in checked(user, name, text).problems]


def captioned(folder: Path, count: int = 2) -> Path:
    write_pictures(folder, count)
    for picture in folder.glob("*.png"):
        picture.with_suffix(".txt").write_text("a text\n")
    return folder


# sd-scripts


def test_every_problem_of_an_sd_scripts_file(user: Path) -> None:
    pictures = captioned(user / "pictures")
    (pictures / "photo 0.txt").unlink()
    (pictures / "photo 1.txt").write_text(" \n")
    (user / "empty").mkdir()
    text = f"""
        [genral]
        [general]
        caption_extension = "txt"
        caption_extention = ".txt"
        is_reg = false
        [[datasets]]
        resolution = 1000
        enable_bucket = true
        max_bucket_reso = 896
        batch_size = 0
        validation_split = 0
        [[datasets.subsets]]
        image_dir = {str(pictures)!r}
        num_repeats = "10"
        batch_size = 1
        flip_aug = true
        [[datasets.subsets]]
        image_dir = {str(user / "nowhere")!r}
        [[datasets.subsets]]
        image_dir = {str(user / "empty")!r}
        class_tokens = "sks dog"
        [[datasets.subsets]]
        image_dir = {str(user / "empty")!r}
        class_tokens = "sks dog"
        [[datasets.subsets]]
        class_token = "x"
    """
    nothing = f"image_dir = '{user / 'empty'}' holds no picture, so the trainer leaves the subset out"
    assert problems(user, "d.toml", text) == [
        "unknown table 'genral' (did you mean 'general'?)",
        "[general]: unknown key 'caption_extention' (did you mean 'caption_extension'?)",
        "[general]: 'is_reg' belongs into [[datasets.subsets]]",
        "[[datasets]] 1: batch_size = 0: must be at least 1",
        "[[datasets]] 1: validation_split = 0: must be a number with a point, such as 0.0",
        "[[datasets]] 1, subset 1: num_repeats = '10': must be a whole number",
        "[[datasets]] 1, subset 1: 'batch_size' belongs into [[datasets]] or [general]",
        "[[datasets]] 1, subset 5: unknown key 'class_token' (did you mean 'class_tokens'?)",
        "[[datasets]] 1, subset 5: image_dir is missing",
        "[[datasets]] 1: resolution = 1000 is not a multiple of bucket_reso_steps = 64",
        "[[datasets]] 1: resolution = 1000 is above max_bucket_reso = 896",
        f"[[datasets]] 1, subset 4: image_dir '{user / 'empty'}' again: the trainer takes the first alone",
        "[[datasets]] 1: flip_aug differs between its subsets: the trainer stops at a batch that mixes them",
        "[[datasets]] 1, subset 1: photo 0.txt is missing: without class_tokens the trainer takes an empty text",
        "[[datasets]] 1, subset 1: photo 1.txt is empty",
        f"[[datasets]] 1, subset 2: image_dir = '{user / 'nowhere'}' is not a folder on this computer",
        f"[[datasets]] 1, subset 3: {nothing}",
        f"[[datasets]] 1, subset 4: {nothing}",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[general]\n", "[[datasets]] is missing"),
        ("datasets = []\n", "[[datasets]] is missing"),
        ("datasets = [3]\n", "[[datasets]] 1 = 3 must be a table"),
        ("general = 3\n[[datasets]]\n", "[general] = 3 must be a table"),
        ("[[datasets]]\nresolution = 512\n", "[[datasets.subsets]] is missing"),
        ("[[datasets]]\nsubsets = [1]\n", "subset 1 = 1 must be a table"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'p'\nis_reg = true\n", "there is nothing to teach"),
        ("[[datasets]]\nresolution = 500\n[[datasets.subsets]]\nimage_dir = 'p'\n", "is not a multiple of 8"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_directory = 'p'\n", "did you mean 'image_dir'?"),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'p'\n[[datasets.subsets]]\nmetadata_file = 'm'\n",
            "some subsets have metadata_file",
        ),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'p'\nconditioning_data_dir = 'p'\nis_reg = true\n",
            "'is_reg' has no meaning in a dataset of this kind",
        ),
        ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'm.json'\n", "metadata_file = 'm.json' is not a file"),
    ],
)
def test_one_problem_of_an_sd_scripts_file(user: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned(user / "p")
    found = checked(user, "d.toml", text)
    assert found.kind == "description for sd-scripts"
    assert any(said in problem for problem in found.problems), found.problems


def test_right_sd_scripts_files(user: Path) -> None:
    pictures, masks = captioned(user / "p"), write_pictures(user / "m", 2)
    subset = {"image_dir": str(pictures), "caption_extension": ".txt"}
    for content in (
        {"datasets": [{"resolution": [512, 768], "subsets": [subset]}]},
        {"general": {"enable_bucket": True, "resolution": 1024}, "datasets": [{"subsets": [subset]}]},
        {"datasets": [{"subsets": [{"image_dir": str(masks), "class_tokens": "x"}, {**subset, "is_reg": True}]}]},
        {"datasets": [{"subsets": [{**subset, "conditioning_data_dir": str(masks)}]}]},
    ):
        assert problems(user, "d.json", json.dumps(content)) == []
    (masks / "photo 1.png").unlink()
    (only,) = problems(user, "d.json", json.dumps(content))
    assert "no picture in conditioning_data_dir for photo 1.png" in only


# musubi


def test_every_problem_of_a_musubi_file(user: Path) -> None:
    pictures = captioned(user / "pictures")
    (pictures / "photo 1.txt").unlink()
    (user / "list.jsonl").write_text(
        json.dumps({"image_path": str(pictures / "photo 0.png"), "caption": "x"}) + "\n"
        + json.dumps({"image_path": "/nowhere.png", "caption": "x"}) + "\nno json\n"
        + json.dumps({"caption": "x"}) + "\n"
    )  # fmt: skip
    text = f"""
        [general]
        resolution = [960, 540]
        caption_extension = ".txt"
        enable_buckets = true
        [[datasets]]
        image_directory = {str(pictures)!r}
        cache_directory = "c"
        image_dir = "x"
        [[datasets]]
        image_jsonl_file = {str(user / "list.jsonl")!r}
        [[datasets]]
        video_directory = {str(user / "videos")!r}
        cache_directory = "c"
        source_fps = 30
        multiple_target = true
        [[datasets]]
        num_repeats = 0
    """
    found = checked(user, "d.toml", text)
    assert found.kind == "description for musubi"
    place = f"{user / 'd.toml'}: [[datasets]]"
    listed = f"{place} 2: list.jsonl, line"
    assert list(found.problems) == [
        f"{user / 'd.toml'}: [general]: unknown key 'enable_buckets' (did you mean 'enable_bucket'?)",
        f"{place} 1: unknown key 'image_dir' (did you mean 'image_directory'?)",
        f"{place} 1: resolution = [960, 540] is not a multiple of 16",
        f"{place} 2: cache_directory is missing: pictures named in a jsonl file need one",
        f"{place} 2: resolution = [960, 540] is not a multiple of 16",
        f"{place} 3: source_fps = 30: must be a number with a point, such as 0.0",
        f"{place} 3: 'multiple_target' has no meaning in a dataset of this kind",
        f"{place} 3: cache_directory 'c' again: each dataset needs its own",
        f"{place} 3: resolution = [960, 540] is not a multiple of 16",
        f"{place} 4: num_repeats = 0: must be at least 1",
        f"{place} 4: none of image_directory, image_jsonl_file, video_directory, video_jsonl_file is there",
        f"{place} 4: resolution = [960, 540] is not a multiple of 16",
        f"{place} 1: photo 1.txt is missing: the trainer leaves a picture without caption out",
        f"{listed} 2: /nowhere.png does not exist",
        f"{listed} 3: not an object with image_path and caption",
        f"{listed} 4: image_path is missing",
        f"{place} 3: video_directory = '{user / 'videos'}' is not a folder on this computer",
    ]


def test_a_musubi_dataset_needs_a_caption_extension(user: Path) -> None:
    text = f"[[datasets]]\nimage_directory = {str(captioned(user / 'p'))!r}\n"
    (only,) = problems(user, "d.toml", text)
    assert "caption_extension is missing" in only
    assert problems(user, "d.toml", text + 'caption_extension = ".txt"\n') == []


# ai-toolkit


def test_every_problem_of_an_ai_toolkit_job(user: Path) -> None:
    pictures = captioned(user / "pictures")
    (pictures / "photo 0.txt").unlink()
    (user / "empty").mkdir()
    text = f"""
jobs: extension
config:
  process:
    - type: sd_trainer
      datasets:
        - folder_path: {pictures}
          caption_ext: txt
          caption_dropout: 0.05
          caption_dropout_rate: 5e-2
          resolution: "512"
        - folder_path: {user / "empty"}
          cache_latents: 1
        - mask_path: {user / "nowhere"}
    - type: sd_trainer
      dataset: []
"""
    assert problems(user, "job.yaml", text) == [
        "unknown key 'jobs' (did you mean 'job'?)",
        "job is missing",
        "config: name is missing",
        "config.process 1, dataset 1: unknown key 'caption_dropout' (did you mean 'caption_dropout_rate'?)",
        "config.process 1, dataset 1: resolution = '512': must be a whole number or a list",
        "config.process 1, dataset 2: cache_latents = 1: must be true or false",
        "config.process 1, dataset 3: folder_path is missing",
        "config.process 2: datasets is missing: there is nothing to train on (did you mean 'dataset'?)",
        "config.process 1, dataset 1: photo 0.txt is missing: without default_caption the trainer takes an empty text",
        f"config.process 1, dataset 2: folder_path = '{user / 'empty'}' holds no picture",
        f"config.process 1, dataset 3: mask_path = '{user / 'nowhere'}' is not a folder on this computer",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "the file is no table"),
        ("job: x\nconfig:\n  name: n\n", "process is missing"),
        ("job: x\nconfig:\n  name: n\n  process: [3]\n", "config.process 1 = 3 must be a table"),
        ("job: [x\n", "is not valid YAML"),
        ("job: x\n", "config is missing"),
    ],
)
def test_one_problem_of_an_ai_toolkit_job(user: Path, text: str, said: str) -> None:
    assert any(said in problem for problem in checked(user, "job.yml", text).problems)


# diffusers


def test_every_problem_of_an_image_folder(user: Path) -> None:
    folder = write_pictures(user / "set", 3)
    rows = [
        {"file_name": "photo 0.png", "text": "a"}, {"file_name": "photo 0.png", "text": "b"},
        {"file_name": "gone.png", "text": " "}, {"text": "x"}, {"file_name": "photo 1.png"},
    ]  # fmt: skip
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "[]\n")
    assert problems(user, "set/metadata.jsonl", (folder / "metadata.jsonl").read_text()) == [
        "line 6: not a JSON object",
        "line 2: photo 0.png stands in line 1 already",
        "line 3: gone.png does not exist",
        "line 3: text = ' ' must be the picture's text",
        "line 4: file_name = None must be the picture's path from this folder",
        "line 4: keys text; the first line has file_name, text",
        "line 5: keys file_name; the first line has file_name, text",
        "line 5: there is no text beside file_name",
        "photo 2.png lies in the folder and in no line",
    ]
    assert "reads metadata.jsonl alone" in problems(user, "other.jsonl", "{}\n")[0]
    assert "there is no line in it" in problems(user, "metadata.jsonl", "")


# what is none of these


def test_what_nobody_reads(user: Path) -> None:
    assert "is nothing that dreamctl or a trainer that it knows reads" in problems(user, "x.json", "{}")[0]
    assert "is not valid JSON" in checked(user, "x.json", "{").problems[0]
    (user / "bad.yaml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in validate([user / "bad.yaml"], user)[0].problems[0]


def test_settings_and_recipes_are_read_as_before(user: Path) -> None:
    assert checked(user, "dreamctl.toml", "processes = 1\n").kind == "project file"
    assert checked(user, "r.toml", 'extends = "builtin"\n').kind == "recipe"
