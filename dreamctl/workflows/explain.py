"""What each setting and each recipe knob may be, read from the fields themselves: the one place that documents them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dreamctl import plugins, recipes
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.settings import PREFIX, Settings

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list"}
_BOUNDS = (("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"), ("exclusiveMaximum", "< {}"))
REQUIRED = "(none: it must be given)"
NAMES: Mapping[str, Callable[[], list[str]]] = {
    "backend": lambda: plugins.names("backends"),
    "captioner": lambda: plugins.names("captioners"),
    "family": lambda: [*plugins.names("families"), *plugins.TAUGHT_ELSEWHERE],
}
"""Keys whose values are names behind a door."""


@dataclass(frozen=True)
class Knob:
    """One key: where it belongs ("setting" or "recipe"), and what its field says of it."""

    key: str
    belongs_to: str
    type: str
    default: Any
    allowed: str
    description: str

    def data(self) -> dict[str, Any]:
        """JSON-ready; its keys are an interface."""
        return asdict(self)

    def text(self) -> str:
        """The knob as a paragraph."""
        where = "a setting" if self.belongs_to == "setting" else "a recipe's knob"
        facts = [("type", self.type), ("allowed", self.allowed), ("default", shown(self.default))]
        if self.belongs_to == "setting":
            variable = f"{PREFIX}{self.key.upper()}"
            ways = f"{variable}, `config set {self.key} VALUE`, or a command's own flag where it has one"
            facts.append(("set by", ways))
        else:
            facts.append(("set by", f"a recipe file, --set {self.key}=VALUE"))
        lines = [
            f"{self.key} ({where}): {self.description}",
            *(f"  {name:<8} {value}" for name, value in facts if value),
        ]
        return "\n".join(lines)


def knobs() -> list[Knob]:
    """Every setting, then every knob of a recipe."""
    return [*_walk(Settings.model_json_schema(), "setting"), *_walk(Recipe.model_json_schema(), "recipe")]


def explain(key: str | None) -> list[Knob]:
    """The knobs that `key` names: one, a whole table (`training`), all that end in it (`steps`), or all without a key.

    Raises InvalidInput with the nearest key.
    """
    every = knobs()
    if key is None:
        return every
    wanted = key.strip().replace("-", "_")
    exact = [knob for knob in every if knob.key == wanted]
    near = [knob for knob in every if knob.key.startswith(f"{wanted}.") or knob.key.endswith(f".{wanted}")]
    if not exact and not near:
        raise InvalidInput(
            f"there is no setting and no recipe knob {key!r}",
            field="KEY",
            hint=did_you_mean(wanted, [knob.key for knob in every]),
        )
    return exact or near


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "(not set)"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "(empty)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _walk(schema: Mapping[str, Any], belongs_to: str) -> Iterator[Knob]:
    """The leaves of a JSON schema, with dotted keys."""
    definitions = schema.get("$defs", {})

    def below(table: Mapping[str, Any], prefix: str) -> Iterator[Knob]:
        for name, field in table["properties"].items():
            inner = _resolved(field, definitions)
            if "properties" in inner:
                yield from below(inner, f"{prefix}{name}.")
            else:
                default = field.get("default", REQUIRED)
                kind, allowed = _kind(inner, definitions)
                names = NAMES.get(name) or (recipes.names if name == "recipe" else None)
                if names:
                    allowed = ", ".join(names()) + (", or a file" if name == "recipe" else "")
                description = field.get("description", "")
                yield Knob(f"{prefix}{name}", belongs_to, kind, default, allowed, description)

    yield from below(schema, "")


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field without references and without its "or null"."""
    if "$ref" in field:
        found: Mapping[str, Any] = definitions[field["$ref"].rpartition("/")[2]]
        return found
    choices = [choice for choice in field.get("anyOf", ()) if choice.get("type") != "null"]
    return _resolved(choices[0], definitions) if len(choices) == 1 else field


def _kind(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[str, str]:
    """The type and the allowed values, in words."""
    if "const" in field:
        return _TYPES.get(field.get("type", ""), "value"), str(field["const"])
    if "enum" in field:
        return "one of a list", ", ".join(str(value) for value in field["enum"])
    kind = _TYPES.get(field.get("type", ""), "value")
    if kind == "list":
        items = field.get("prefixItems") or [field.get("items", {})]
        inner, allowed = _kind(_resolved(items[0], definitions), definitions)
        return f"list of {f'{len(items)} × ' if 'prefixItems' in field else ''}{inner}", allowed
    bounds = [phrase.format(field[name]) for name, phrase in _BOUNDS if name in field]
    if "multipleOf" in field:
        bounds.append(f"a multiple of {field['multipleOf']}")
    if "pattern" in field:
        bounds.append(f"matches {field['pattern']}")
    return kind, ", ".join(bounds)
