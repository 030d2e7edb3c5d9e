"""A description as TOML or YAML, the same for the same input, every value escaped by the library; and its command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from dreamctl.errors import InvalidInput
from dreamctl.trainers.base import Material


def toml(trainer: str, material: Material, content: Mapping[str, Any]) -> str:
    """The whole file, with a comment at its top. Tables of `content` become tables, lists of tables `[[…]]`."""
    import tomlkit

    text = tomlkit.document()
    for words in heading(trainer, material):
        text.add(tomlkit.comment(words))
    for key, value in content.items():
        text.add(tomlkit.nl())
        text.add(key, _item(value))
    return tomlkit.dumps(text)


def yaml(trainer: str, material: Material, content: Mapping[str, Any]) -> str:
    """The whole file, with a comment at its top."""
    from yaml import safe_dump

    plain = json.loads(json.dumps(content))  # a list that stands twice would become an anchor and its alias
    body: str = safe_dump(plain, sort_keys=False, allow_unicode=True, width=10_000)
    return "".join(f"# {words}\n" for words in heading(trainer, material)) + body


def command(start: str, script: str, flags: Mapping[str, object]) -> str:
    """`start script --flag value …` for a shell; a flag without a value is given as True."""
    words = [flag if value is True else f"{flag} {shlex.quote(str(value))}" for flag, value in flags.items()]
    return " ".join([start, script, *words])


def heading(trainer: str, material: Material) -> list[str]:
    """What stands at a description's top: whose it is, and where its values are from."""
    source = "the configured recipe" if material.recipe else "the defaults, since no recipe is configured"
    return [
        f"A dataset's description for {trainer}, written by `dreamctl config dataset`; the paths are absolute.",
        f"Resolution and batch size are from {source}, where --set does not give them.",
        "The text files hold identifier and category already: run the command again when the dataset has changed.",
    ]


def refused(trainer: str, problems: Iterable[str]) -> None:
    """Raises InvalidInput where what the line asked for is nothing that the trainer accepts."""
    found = list(problems)
    if found:
        raise InvalidInput(f"{trainer} would refuse this: {'; '.join(found)}", field="--set", hint="change --set")


def _item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, Mapping):
        table = tomlkit.table()
        for key, inner in value.items():
            table.add(key, _item(inner))
        return table
    if isinstance(value, list) and value and all(isinstance(inner, Mapping) for inner in value):
        array = tomlkit.aot()
        for inner in value:
            array.append(_item(inner))
        return array
    return tomlkit.item(value)
