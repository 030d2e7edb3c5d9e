"""What is installed, what this computer has, and so what works here: each finding with advice where it is not well."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dreamctl import __version__, credentials, machine, paths, recipes
from dreamctl.backends.base import as_remote
from dreamctl.context import Context
from dreamctl.errors import DreamctlError
from dreamctl.files import free_bytes, os_hint
from dreamctl.settings import Settings, load_settings

State = Literal["ok", "warn", "missing"]
_LOCAL = ("torch", "diffusers", "transformers", "accelerate", "peft")
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "local": _LOCAL,
    "wd14": ("onnxruntime",),
    "cutout": ("rembg", "onnxruntime"),
    "s3": ("boto3",),
    "gcs": ("google-cloud-storage",),
    "keyring": ("keyring",),
}
_GIB = 1 << 30
_LITTLE_DISK = 5 * _GIB  # a base model and one run
_LITTLE_GPU = 6 * _GIB


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `data`: numbers for programs."""

    name: str
    state: State
    value: str
    advice: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything found, whether training works on this computer, and the device that it would take."""

    findings: tuple[Finding, ...]
    local_training: bool
    device: str | None

    def data(self) -> dict[str, Any]:
        """JSON-ready; its keys are an interface."""
        return {
            "local_training": self.local_training,
            "device": self.device,
            "checks": [asdict(finding) for finding in self.findings],
        }


def examine_backend(context: Context, name: str, ask_worker: bool) -> Report:
    """Look at one place where runs are trained. Raises NotFound for a backend that there is not."""
    backend = context.backend(name)
    remote = as_remote(backend)
    if remote is None:
        return examine(context.project, None)
    looks = remote.examine(ask_worker)
    findings = tuple(Finding(what, state, value, advice) for what, state, value, advice in looks)
    return Report(findings, False, None)


def examine(project: Path, profile: str | None) -> Report:
    """Look at everything; what is broken is a finding, never an error."""
    settings, finding = _settings(project, profile)
    asked = machine.ask_torch()
    gpus = asked.gpus if asked else machine.ask_driver()
    device = machine.choose_device(settings.device, asked.gpus if asked else ())
    works = _local_training(asked, settings.device, device)
    findings = [
        Finding("dreamctl", "ok", __version__),
        Finding("python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})"),
        *_packages(asked),
        *_extras(),
        *_gpus(gpus, asked),
        Finding("cores", "ok", str(machine.cores()), data={"cores": machine.cores()}),
        _memory(),
        _disk("disk, dreamctl's data", paths.data_dir()),
        _disk("disk, this project", project),
        finding,
        *_guarded("token", lambda: _tokens(project)),
        _registry(paths.registry_file()),
        *_guarded("recipes", _recipes),
        works,
    ]
    return Report(tuple(findings), works.state == "ok", device if works.state == "ok" else None)


def _settings(project: Path, profile: str | None) -> tuple[Settings, Finding]:
    try:
        settings = load_settings(project, profile)
    except (DreamctlError, OSError) as error:
        hint = error.hint if isinstance(error, DreamctlError) else os_hint(error)
        return Settings(), Finding("settings", "warn", str(error), hint or "correct it")
    known = [name for name in (paths.user_file(), project / paths.PROJECT_FILE) if name.is_file()]
    return settings, Finding("settings", "ok", ", ".join(map(str, known)) or "defaults")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages(asked: machine.Torch | None) -> Iterator[Finding]:
    for package in _LOCAL:
        version = _version(package)
        if package == "torch" and asked and asked.error:
            yield Finding("torch", "warn", f"cannot be imported: {asked.error}", "install torch again")
        elif version:
            yield Finding(package, "ok", version)
        else:
            yield Finding(package, "missing", "not installed", _install("local"))


def _install(extra: str) -> str:
    return f'pip install "dreamctl[{extra}]"'


def _extras() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        lacking = [package for package in packages if not _version(package)]
        if lacking:
            yield Finding(f"extra {extra}", "missing", f"without {', '.join(lacking)}", _install(extra))
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _gpus(gpus: tuple[machine.Gpu, ...], asked: machine.Torch | None) -> Iterator[Finding]:
    if not gpus:
        without = "the built-in model works without one; real base models want one"
        yield Finding("gpu", "missing", "none that can be used", without)
    for gpu in gpus:
        data = {"name": gpu.name, "free_bytes": gpu.free, "total_bytes": gpu.total}
        room = f"{_size(gpu.free)} free of {_size(gpu.total)}"
        state: State = "ok"
        advice: str | None = None
        if asked is None:
            state, advice = "warn", f"torch is not installed, so nothing uses it: {_install('local')}"
        elif gpu.free is not None and gpu.free < _LITTLE_GPU:
            state, advice = "warn", "little memory is free: end what uses it, or keep to small recipes"
        yield Finding(f"gpu {gpu.device}", state, f"{gpu.name}, {room}", advice, data)


def _memory() -> Finding:
    free, total = machine.memory()
    value = f"{_size(free)} free of {_size(total)}"
    return Finding("memory", "ok", value, data={"free_bytes": free, "total_bytes": total})


def _disk(name: str, folder: Path) -> Finding:
    free = free_bytes(folder)
    data = {"path": str(folder), "free_bytes": free}
    if free < _LITTLE_DISK:
        advice = "free some space: `dreamctl rm RUN` deletes old runs"
        return Finding(name, "warn", f"{_size(free)} free at {folder}", advice, data)
    return Finding(name, "ok", f"{_size(free)} free at {folder}", data=data)


def _guarded(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except DreamctlError as error:
        return [Finding(name, "warn", error.message, error.hint or "correct it")]
    except OSError as error:  # a file that may not be read
        return [Finding(name, "warn", str(error), os_hint(error) or "correct it")]


def _tokens(project: Path) -> list[Finding]:
    found = []
    for provider in credentials.PROVIDERS.values():
        token = credentials.find(provider.name, project)
        advice = f"only where you use {provider.name}: `dreamctl auth login {provider.name}`"
        found.append(
            Finding(f"token {provider.name}", "ok", token.origin)
            if token
            else Finding(f"token {provider.name}", "missing", "none", advice)
        )
    return found


def _recipes() -> list[Finding]:
    names = recipes.names()
    for name in names:
        recipes.resolve(name)
    if not names:
        return [Finding("recipes", "missing", f"none in {paths.configs_dir()}", "install dreamctl again")]
    return [Finding("recipes", "ok", f"{len(names)} in {paths.configs_dir()}")]


def _registry(file: Path) -> Finding:
    """Looked at without opening it for writing: a look must not migrate, and must not make it."""
    if not file.exists():
        return Finding("registry", "ok", "none yet; the first training makes it")
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            count = connection.execute("SELECT count(*) FROM concepts").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        said, count = str(error), 0
    if said != "ok":
        advice = "move it away; the next command rebuilds it from the run folders beside it"
        return Finding("registry", "warn", f"{file}: {said}", advice)
    return Finding(
        "registry", "ok", f"{count} identifier{'' if count == 1 else 's'} in {file}", data={"concepts": count}
    )


def _local_training(asked: machine.Torch | None, wanted: str | None, device: str | None) -> Finding:
    name = "training here"
    lacking = [package for package in _LOCAL if not _version(package)]
    if lacking:
        return Finding(name, "missing", f"no: without {', '.join(lacking)}", _install("local"))
    if asked is None or asked.error:
        return Finding(name, "missing", "no: torch cannot be imported", "install torch again")
    if device is None:
        return Finding(name, "missing", f"no: device {wanted} is not here", "`dreamctl config explain device`")
    if device == "cpu":
        return Finding(name, "ok", "yes, on the CPU", "enough for the built-in model; SD 1.5 would take hours")
    return Finding(name, "ok", f"yes, on {device}")


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / _GIB:.1f} GiB"
