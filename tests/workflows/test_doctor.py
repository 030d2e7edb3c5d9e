"""The doctor: what it finds on this computer, without torch, with broken settings, and with a broken registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import dreamctl
from dreamctl import machine, paths
from dreamctl.machine import Gpu, choose_device
from dreamctl.registry import Registry
from dreamctl.workflows.doctor import Finding, Report, examine

CORE = (
    "typer",
    "rich",
    "httpx",
    "pydantic",
    "pydantic-settings",
    "python-dotenv",
    "platformdirs",
    "filelock",
    "tomlkit",
)
GPUS = (Gpu("cuda:0", "big", 100, 200), Gpu("cuda:1", "small", 10, 20))


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the keyring of the person who runs the tests."""
    monkeypatch.setitem(sys.modules, "keyring", None)


def found(report: Report, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.name == name)


def test_everything_is_looked_at_and_what_is_not_well_has_advice(user: Path) -> None:
    report = examine(user, None)
    names = {finding.name for finding in report.findings}
    assert names >= {
        "dreamctl", "python", "torch", "diffusers", "transformers", "accelerate", "peft", "cores", "memory",
        "disk, dreamctl's data", "disk, this project", "settings", "registry", "recipes", "training here",
        "extra local", "extra wd14", "extra cutout", "extra s3",
        "token huggingface", "token runpod", "token replicate", "token openai",
    }  # fmt: skip
    assert any(name.startswith("gpu") for name in names)
    assert [finding for finding in report.findings if finding.state != "ok" and not finding.advice] == []
    assert {finding.state for finding in report.findings} <= {"ok", "warn", "missing"}
    assert json.loads(json.dumps(report.data()))["device"] == report.device


def test_looking_changes_nothing(user: Path) -> None:
    examine(user, None)
    assert not paths.data_dir().exists()
    assert list(user.iterdir()) == []


def test_a_token_is_told_by_its_place_only(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_GEHEIM123456")
    report = examine(user, None)
    assert (found(report, "token runpod").state, found(report, "token runpod").value) == ("ok", "RUNPOD_API_KEY")
    assert "GEHEIM" not in json.dumps(report.data())


def test_broken_settings_are_a_finding_and_the_rest_is_still_told(user: Path) -> None:
    (user / "dreamctl.toml").write_text("bakend = 1\n")
    report = examine(user, None)
    assert found(report, "settings").state == "warn"
    assert "'bakend'" in found(report, "settings").value
    assert found(report, "recipes").state == "ok"


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and then nothing of the kind", b"hello"])
def test_a_broken_registry_is_a_finding(user: Path, content: bytes) -> None:
    paths.registry_file().parent.mkdir(parents=True)
    paths.registry_file().write_bytes(content)
    finding = found(examine(user, None), "registry")
    assert finding.state == "warn"
    assert "rebuilds it" in (finding.advice or "")
    assert paths.registry_file().read_bytes() == content


def test_a_good_registry_is_told(user: Path) -> None:
    Registry.open(paths.registry_file()).close()
    assert found(examine(user, None), "registry") == Finding(
        "registry", "ok", f"0 identifiers in {paths.registry_file()}", data={"concepts": 0}
    )


def test_a_device_that_is_not_here_means_no_training(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("DREAMCTL_DEVICE", "cuda:99")
    report = examine(user, None)
    assert not report.local_training
    assert "cuda:99 is not here" in found(report, "training here").value


@pytest.mark.parametrize(
    ("wanted", "gpus", "device"),
    [
        (None, GPUS, "cuda:0"),
        (None, (), "cpu"),
        ("cpu", GPUS, "cpu"),
        ("cuda", GPUS, "cuda"),
        ("cuda:1", GPUS, "cuda:1"),
        ("cuda:2", GPUS, None),
        ("cuda", (), None),
        ("mps", GPUS, None),
        ("mps", (Gpu("mps", "Apple GPU", None, 8),), "mps"),
    ],
)
def test_the_device_is_the_wanted_one_else_the_first_gpu(
    wanted: str | None, gpus: tuple[Gpu, ...], device: str | None
) -> None:
    assert choose_device(wanted, gpus) == device


def test_the_drivers_tool_is_asked_where_there_is_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H200, 140000, 143771'\necho '1, GH, [N/A], [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.ask_driver() == (
        Gpu("cuda:0", "NVIDIA H200", 140000 << 20, 143771 << 20),
        Gpu("cuda:1", "GH", None, None),
    )
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert machine.ask_driver() == ()


def light_site(folder: Path) -> Path:
    """A folder of packages that holds the light core's alone, as `pip install dreamctl` would leave it."""
    wanted, seen = list(CORE), set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # wanted on another system or Python
        needs = (need for need in package.requires or () if "extra ==" not in need)
        wanted += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs]
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(package.locate_file(top)))
    return folder


def test_the_light_core_alone_can_ask_the_doctor(user: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    path = os.pathsep.join([str(light_site(site)), str(Path(dreamctl.__file__).parents[1])])
    program = (
        "import json; from pathlib import Path; from dreamctl.workflows.doctor import examine\n"
        "print(json.dumps(examine(Path.cwd(), None).data()))"
    )
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert (report["local_training"], report["device"]) == (False, None)
    assert checks["torch"]["state"] == checks["training here"]["state"] == "missing"
    assert checks["torch"]["advice"] == 'pip install "dreamctl[local]"'
    assert checks["recipes"]["state"] == "ok"
