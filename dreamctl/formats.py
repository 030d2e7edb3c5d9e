"""Reads what other programs read, by its suffix: TOML, YAML, JSON, and lines of JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import os_hint, os_reason, read_json, read_toml

_EXPONENT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")  # 1e-4, which YAML 1.1 takes for text


def read_format(file: Path) -> Any:
    """The content by the file's suffix; of `.jsonl` its lines. Raises InvalidInput or DreamctlError with the place."""
    if file.suffix == ".json":
        return read_json(file)
    if file.suffix in (".yaml", ".yml"):
        return _read_yaml(file)
    return _lines(_text(file)) if file.suffix == ".jsonl" else read_toml(file)


def _read_yaml(file: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads exponents as numbers, as ai-toolkit does."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
    try:
        return yaml.load(_text(file), Loader)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []  # splitlines() ends lines at more than line feeds


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text", hint="save it as UTF-8") from error
    except OSError as error:
        raise DreamctlError(f"{file}: {os_reason(error)}", hint=os_hint(error)) from error
