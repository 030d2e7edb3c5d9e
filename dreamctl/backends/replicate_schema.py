"""The inputs of a trainer at Replicate, read from its OpenAPI schema; values are checked before they are sent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.http import printable, redact, remember_secret

_KINDS = frozenset({"string", "integer", "number", "boolean", "array", "object"})
_MOST = 500  # inputs of one trainer; none has a tenth of that
_SAID = {
    "string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "array": "a list (JSON)", "object": "a table (JSON)",
}  # fmt: skip


@dataclass(frozen=True)
class Property:
    """One input. `file`: it is a URL; `secret`: a token, which is shown nowhere."""

    name: str
    kind: str = "string"
    least: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] = ()
    default: Any = None
    file: bool = False
    secret: bool = False


@dataclass(frozen=True)
class Schema:
    """All inputs of a trainer, and which of them it needs. `closed`: it takes no other."""

    properties: Mapping[str, Property]
    required: frozenset[str] = frozenset()
    closed: bool = True

    def first(self, names: Iterable[str]) -> Property | None:
        """The first of `names` that is an input."""
        return next((self.properties[name] for name in names if name in self.properties), None)


def read_schema(openapi: Any) -> Schema | None:
    """The `TrainingInput` of a version's `openapi_schema`; None where it has none that can be read: it cannot be
    trained, or not by this program."""
    schemas = _at(openapi, "components", "schemas")
    form = _at(schemas, "TrainingInput")
    described = _at(form, "properties")
    if not isinstance(described, Mapping) or not 0 < len(described) <= _MOST:
        return None
    properties = {name: _property(name, rule, schemas) for name, rule in described.items() if name.isidentifier()}
    needed = form.get("required") if isinstance(form, Mapping) else None
    required = frozenset(map(str, needed)) if isinstance(needed, list) else frozenset()
    return Schema(properties, required & set(properties)) if properties else None


def _property(name: str, rule: Any, schemas: Any) -> Property:
    flat = _flat(rule, schemas, 4)
    kind = flat.get("type")
    choices = flat.get("enum")
    return Property(
        name=name,
        kind=kind if kind in _KINDS else "string",
        least=_number(flat.get("minimum")),
        most=_number(flat.get("maximum")),
        choices=tuple(choices) if isinstance(choices, list) else (),
        default=flat.get("default"),
        file=flat.get("format") == "uri",
        secret=flat.get("format") == "password" or flat.get("x-cog-secret") is True or flat.get("writeOnly") is True,
    )


def _flat(rule: Any, schemas: Any, depth: int) -> dict[str, Any]:
    """A rule with what it refers to; of several alternatives the first that is not null."""
    if not isinstance(rule, Mapping) or depth == 0:
        return {}
    found: dict[str, Any] = {}
    if isinstance(rule.get("$ref"), str):
        found |= _flat(_at(schemas, rule["$ref"].rpartition("/")[2]), schemas, depth - 1)
    for word in ("allOf", "anyOf", "oneOf"):
        parts = rule.get(word)
        flat = [_flat(part, schemas, depth - 1) for part in parts] if isinstance(parts, list) else []
        useful = [part for part in flat if part.get("type") != "null"]
        for part in useful if word == "allOf" else useful[:1]:
            found |= part
    found |= {str(key): value for key, value in rule.items()}
    if isinstance(found.get("type"), list):
        found["type"] = next((kind for kind in found["type"] if kind != "null"), "string")
    return found


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def fitted(wanted: Property, value: Any) -> Any:
    """The value as the input takes it. Raises ValueError with the end of "NAME = VALUE …"."""
    if isinstance(value, float) and wanted.kind == "integer" and value.is_integer():
        value = int(value)
    elif isinstance(value, int) and not isinstance(value, bool) and wanted.kind == "number":
        value = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and wanted.kind == "string":
        value = f"{value:g}"
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
    if not isinstance(value, kinds[wanted.kind]) or (isinstance(value, bool) and wanted.kind != "boolean"):
        raise ValueError(f"must be {_SAID[wanted.kind]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if wanted.choices and value not in wanted.choices:
        raise ValueError(f"must be one of {printable(', '.join(map(str, wanted.choices)))[:300]}")
    if isinstance(value, int | float) and wanted.kind in ("integer", "number"):
        if wanted.least is not None and value < wanted.least:
            raise ValueError(f"must be {wanted.least:g} at least")
        if wanted.most is not None and value > wanted.most:
            raise ValueError(f"must be {wanted.most:g} at most")
    return value


def assignments(schema: Schema, texts: Iterable[str], taken: Iterable[str] = ()) -> dict[str, Any]:
    """What KEY=VALUE texts give, each read by the type of its input. `taken`: inputs that are dreamctl's own.

    Raises InvalidInput that names the key, and the nearest right one.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInput(
                f"--input {printable(text)!r} is not KEY=VALUE", field="--input", hint="for example --input steps=1000"
            )
        if name in taken:
            raise InvalidInput(f"--input {name}: dreamctl fills this one in itself", field="--input")
        wanted = schema.properties.get(name)
        if wanted is None and schema.closed:
            raise InvalidInput(
                f"the trainer has no input {printable(name)!r}",
                field="--input",
                hint=did_you_mean(name, schema.properties),
            )
        if wanted is not None and wanted.secret:
            remember_secret(value)
        try:
            found[name] = _read(wanted, value)
        except ValueError as error:
            shown = "***" if wanted and wanted.secret else redact(value)
            raise InvalidInput(f"--input {name}={shown}: {error}", field="--input") from None
    return found


def _read(wanted: Property | None, text: str) -> Any:
    """A text as the value that it means for the input; of an unknown input as JSON, else as it is."""
    if wanted is None:
        try:
            return json.loads(text)
        except ValueError:
            return text
    if wanted.kind == "string":
        return fitted(wanted, text)
    try:
        return fitted(wanted, json.loads(text.lower() if wanted.kind == "boolean" else text))
    except json.JSONDecodeError:
        raise ValueError(f"must be {_SAID[wanted.kind]}") from None
