"""Who may import whom, and where heavy packages may be imported: the table, and a test for each new arrow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dreamctl

PACKAGE = Path(dreamctl.__file__).parent

# Part of the package -> the parts that it may import. Every part may import itself and `dreamctl` (the version).
KERNEL = "kernel"
ALLOWED: dict[str, set[str]] = {
    "domain": {"errors"},
    "errors": set(),
    KERNEL: {"errors", "domain"},
    "state": {"errors", KERNEL, "domain"},  # settings, credentials, registry: what is remembered about this user
    "context": {
        "errors", KERNEL, "domain", "state", "backends.base", "captioners.base", "storage.base", "trainers.base",
    },
    "families": {"errors", KERNEL, "domain", "builtin"},
    "generation": {"errors", KERNEL, "domain", "families"},
    "training": {"errors", KERNEL, "domain", "families", "generation"},
    "backends": {"errors", KERNEL, "domain", "state", "storage.base", "storage.web"},
    "storage": {"errors", KERNEL, "domain"},
    "captioners": {"errors", KERNEL, "domain", "builtin"},
    "trainers": {"errors", KERNEL, "domain"},
    "builtin": {"errors", KERNEL},
    "workers": {"errors", KERNEL, "domain", "storage.base", "families", "generation"},
    "workflows": {
        "errors", KERNEL, "domain", "state", "context", "families", "generation", "builtin",
        "backends.base", "captioners.base", "storage.base", "storage.web", "trainers.base",
    },
    "cli": {"errors", KERNEL, "domain", "context", "workflows"},
    "__main__": {"cli"},
}  # fmt: skip
DOORS = {"storage.web"}  # beside each package's base: what lies at a plain URL is fetched by whoever is told one
STATE = {"settings", "profiles", "credentials", "registry", "migrations", "rows"}
PACKAGES = {
    "domain",
    "families",
    "generation",
    "training",
    "backends",
    "storage",
    "captioners",
    "trainers",
    "builtin",
    "workers",
    "workflows",
    "cli",
}

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "huggingface_hub", "onnxruntime", "rembg"}
HEAVY_AT_TOP = ("training/", "generation/pipeline.py", "builtin/training/", "builtin/gates.py")
NUMPY_AT_TOP = ("builtin/",)  # the world is drawn with numpy


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """The part that a dotted module name below `dreamctl` belongs to: a package, its base, or a kernel group."""
    names = module.split(".")
    if names[0] in PACKAGES:
        return ".".join(names[:2]) if names[1:2] == ["base"] or ".".join(names[:2]) in DOORS else names[0]
    if names[0] in STATE:
        return "state"
    return names[0] if names[0] in ALLOWED else KERNEL


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module below dreamctl) of every import, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "dreamctl":
                yield from ((node.lineno, alias.name) for alias in node.names if not alias.name.startswith("__"))
            elif node.module.startswith("dreamctl."):
                yield node.lineno, node.module.removeprefix("dreamctl.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("dreamctl."):
                    yield node.lineno, alias.name.removeprefix("dreamctl.")


def allowed(importer: str, imported: str) -> bool:
    home, away = importer.split(".")[0], imported.split(".")[0]
    row = ALLOWED[importer if importer in ALLOWED else home]
    return home == away or bool({imported, away} & row)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    if name == "__init__":
        return
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for line, module in imports(path)
        if not allowed(part_of(name), part_of(module))
    ]
    assert not wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    if name.startswith(HEAVY_AT_TOP):
        return
    banned = HEAVY - ({"numpy"} if name.startswith(NUMPY_AT_TOP) else set())
    at_top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {
        alias.name.split(".")[0]
        for node in at_top
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not names & banned


def test_the_table_would_notice_a_wrong_arrow() -> None:
    assert not allowed("domain", "kernel")
    assert not allowed("workflows", "cli")
    assert not allowed("workflows", "backends")
    assert allowed("workflows", "backends.base")
    assert not allowed("training", "state")
    assert not allowed("workers", "state")
    assert not any(allowed(part, "workers") for part in ALLOWED if part != "workers"), "only providers start them"


def test_every_file_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(PACKAGE)) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent
