"""The keys of a trainer's description: what each may be, in which tables it may stand, and what is wrong in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dreamctl.domain.recipe import parse_assignment
from dreamctl.errors import InvalidInput, did_you_mean, nearest


@dataclass(frozen=True)
class Key:
    """One key. `levels`: the tables in which it may stand; `--set KEY=VALUE` puts it into the first.

    `least`, `most` bound every number in the value. `fixed` says who decides it where `--set` may not.
    """

    kind: str
    levels: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    step: int | None = None
    choices: tuple[str, ...] = ()
    fixed: str = ""


@dataclass(frozen=True)
class Schema:
    """A trainer's keys. `labels`: how the file writes each level; `places`: the words before a dot in `--set`."""

    trainer: str
    keys: Mapping[str, Key]
    labels: Mapping[str, str]
    places: Mapping[str, str]

    def assign(self, texts: Iterable[str]) -> dict[str, dict[str, Any]]:
        """`--set` values by place, each where it belongs. Raises InvalidInput that names the value and the way out."""
        found: dict[str, dict[str, Any]] = {place: {} for place in self.places}
        for text in texts:
            place, name, value = self._read(text)
            found[place][name] = value
        return found

    def problems(self, where: str, level: str, table: Any, keys: Mapping[str, Key] | None = None) -> list[str]:
        """Unknown and misplaced keys and wrong values of one table; `keys` where not all have a meaning in it."""
        if not isinstance(table, Mapping):
            return [f"{where} = {table!r} must be a table"]
        return [problem for name in table for problem in self._problems(where, level, str(name), table[name], keys)]

    def _problems(self, where: str, level: str, name: str, value: Any, keys: Mapping[str, Key] | None) -> Iterator[str]:
        known = self.keys if keys is None else keys
        key = known.get(name)
        if key is None and name in self.keys:
            yield f"{where}: {name!r} has no meaning in a dataset of this kind"
        elif key is None:
            here = [other for other, item in known.items() if level in item.levels]
            yield f"{where}: unknown key {name!r} ({did_you_mean(name, here if nearest(name, here) else known)})"
        elif level not in key.levels:
            yield f"{where}: {name!r} belongs into {self._labels(key)}"
        else:
            wrong = complaint(key, value)
            if wrong:
                yield f"{where}: {name} = {value!r}: {wrong}"

    def _read(self, text: str) -> tuple[str, str, Any]:
        path, equals, raw = text.partition("=")
        word, _, name = path.strip().rpartition(".")
        if not equals or not name:
            raise InvalidInput(
                f"--set {text!r} is not KEY=VALUE", field="--set", hint="for example --set num_repeats=5"
            )
        key = self.keys.get(name)
        if key is None:
            hint = did_you_mean(name, (other for other, item in self.keys.items() if not item.fixed))
            raise InvalidInput(f"{self.trainer} has no key {name!r}", field="--set", hint=hint)
        if key.fixed:
            raise InvalidInput(f"--set {text}: dreamctl writes {name!r} itself", field="--set", hint=key.fixed)
        place = word or next(place for place, level in self.places.items() if level == key.levels[0])
        if place not in self.places:
            raise InvalidInput(f"--set {text}: no table {word!r}", field="--set", hint=did_you_mean(word, self.places))
        if self.places[place] not in key.levels:
            label = self.labels[self.places[place]]
            hint = f"it belongs into {self._labels(key)}: --set {name}={raw}"
            raise InvalidInput(f"--set {text}: {name!r} may not stand in {label}", field="--set", hint=hint)
        value = _typed(key, raw)
        wrong = complaint(key, value)
        if wrong:
            raise InvalidInput(f"--set {name} = {value!r}: {wrong}", field="--set", hint=f"--set {name}=VALUE")
        return place, name, value

    def _labels(self, key: Key) -> str:
        return " or ".join(self.labels[level] for level in key.levels)


def unknown_tables(content: Mapping[str, Any]) -> list[str]:
    """The tables of a TOML description that kohya's trainers do not know."""
    known = ("general", "datasets")
    return [f"unknown table {name!r} ({did_you_mean(name, known)})" for name in content if name not in known]


def table_of(value: Any) -> Mapping[str, Any]:
    """The table that a value is; an empty one for what is none, of which is told elsewhere."""
    return value if isinstance(value, Mapping) else {}


def complaint(key: Key, value: Any) -> str | None:
    """What is wrong with a value, as "must be …"; None where nothing is."""
    fits, phrase = KINDS[key.kind]
    if not fits(value):
        return f"must be {phrase}"
    for number in value if isinstance(value, list) else [value]:
        if key.least is not None and not number >= key.least:  # nor is it where it is not a number (nan)
            return f"must be at least {key.least}"
        if key.most is not None and not number <= key.most:
            return f"must be at most {key.most}"
        if key.step is not None and number % key.step:
            return f"must be a multiple of {key.step}"
    if key.choices and value not in key.choices:
        return f"must be one of {', '.join(key.choices)}"
    return None


def _typed(key: Key, raw: str) -> Any:
    """The value of a `--set`: text as it stands, numbers as the trainer wants them (it refuses 0 for 0.0)."""
    value = parse_assignment(f"value={raw}")["value"]
    if key.kind == "text":
        return value if isinstance(value, str) else raw.strip()
    if key.kind == "float" and _is_int(value):
        return float(value)
    if key.kind == "range" and isinstance(value, list):
        return [float(item) if _is_int(item) else item for item in value]
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _list_of(fits: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    def whole(value: Any) -> bool:
        return isinstance(value, list) and length in (None, len(value)) and all(fits(item) for item in value)

    return whole


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (_is_int, "a whole number"),
    "float": (lambda value: isinstance(value, float), "a number with a point, such as 0.0"),
    "number": (_is_number, "a number"),
    "text": (_is_text, "text"),
    "texts": (lambda value: _is_text(value) or _list_of(_is_text)(value), "text or a list of texts"),
    "size": (lambda value: _is_int(value) or _list_of(_is_int, 2)(value), "a whole number or [width, height]"),
    "sizes": (lambda value: _is_int(value) or (bool(value) and _list_of(_is_int)(value)), "a whole number or a list"),
    "range": (_list_of(lambda value: isinstance(value, float), 2), "two numbers with a point, such as [1.0, 1.5]"),
    "ints": (_list_of(_is_int), "a list of whole numbers"),
    "numbers": (_list_of(_is_number), "a list of numbers"),
    "table": (lambda value: isinstance(value, Mapping), "a table"),
    "tables": (_list_of(lambda value: isinstance(value, Mapping)), "a list of tables"),
}
