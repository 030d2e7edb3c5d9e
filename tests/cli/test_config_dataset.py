"""`dreamctl config dataset` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamctl.cli.app import main
from tests.fakes import write_dataset

Capture = pytest.CaptureFixture[str]


def test_the_screen_and_the_next_command(user: Path, capsys: Capture) -> None:
    write_dataset(user / "processed", count=2)
    words = ["config", "dataset", "--for", "sd-scripts", "--category", "person", "--set", "resolution=64"]
    assert main(words) == 0
    file = user / "processed.sd-scripts.toml"
    command = (
        "accelerate launch --num_cpu_threads_per_process 1 train_network.py --pretrained_model_name_or_path BASE_MODEL "
        f"--dataset_config {file} --network_module networks.lora --output_dir OUTPUT"
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{file}: 2 pictures of sks (person)", f"next: {command}"]
    assert err == ""
    assert main(words) == 0
    assert "(nothing has changed)" in capsys.readouterr().out
    assert main([*words, "-q"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["file"], value["next"], value["written"], value["notes"]) == (str(file), command, 0, [])
    assert (value["identifier"], value["category"], value["pictures"]) == ("sks", "person", 2)
    assert main(["config", "validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: a valid description for sd-scripts\n"


@pytest.mark.parametrize(
    ("words", "code", "said", "hint"),
    [
        (["--set", "num_repeat=5"], 2, "sd-scripts has no key 'num_repeat'", "did you mean 'num_repeats'?"),
        (["--for", "ai-tolkit"], 3, "no trainer named 'ai-tolkit'", "did you mean 'ai-toolkit'?"),
        (["--set", "resolution=60"], 2, "resolution = 60 is not a multiple of 8", "change --set"),
        (["--reg", "nowhere"], 3, "nowhere is not a folder", "name a folder"),
        (["--recipe", "sd51"], 3, "no recipe named 'sd51'", "did you mean 'sd15'?"),
        (["--identifier", "(x:1)"], 2, "identifier", ""),
    ],
)
def test_a_mistake_is_one_sentence_with_a_way_out(
    user: Path, words: list[str], code: int, said: str, hint: str, capsys: Capture
) -> None:
    write_dataset(user / "processed", count=1)
    assert main(["config", "dataset", "--category", "dog", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[0]
    assert hint in err
    assert sorted(path.name for path in user.iterdir()) == ["processed"]


def test_without_a_dataset(capsys: Capture) -> None:
    assert main(["config", "dataset", "--category", "dog"]) == 3
    assert "no dataset at" in capsys.readouterr().err
