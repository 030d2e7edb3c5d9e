"""The common shape of every noun that is stored: frozen, strict about keys, with one digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dreamctl.errors import InvalidInput, did_you_mean


class Noun(BaseModel):
    """A frozen value; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, populate_by_name=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """The value of plain data. Raises InvalidInput that names `where`, the field and the nearest right key."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = list(explain(error, cls))
            first_field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InvalidInput(f"{where}: " + "; ".join(problems), field=first_field or None) from error

    def plain(self) -> dict[str, Any]:
        """JSON-ready data without absent (None) values."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


class Stored(Noun):
    """A noun with a file of its own; `schema = 1` says by which rules it was written."""

    schema_version: Literal[1] = Field(1, alias="schema")


def digest(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of plain data: equal data, equal digest, on every machine."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def digest_of_items(items: Iterable[Any]) -> str:
    """The digest of a list that is never held as a whole."""
    hashed = hashlib.sha256()
    opening = b"["
    for item in items:
        hashed.update(opening + _canonical(item))
        opening = b","
    hashed.update(b"[]" if opening == b"[" else b"]")
    return hashed.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One phrase for each problem of a validation error, in a user's words."""
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        if problem["type"] == "extra_forbidden":
            known = fields_of(model, path[:-1])
            yield f"unknown key {name!r}{f' ({did_you_mean(path[-1], known)})' if known else ''}"
        elif problem["type"] == "missing":
            yield f"{name!r} is missing"
        elif not path:
            yield problem["msg"].removeprefix("Value error, ")
        else:
            yield f"{name} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def fields_of(model: type[BaseModel], path: list[str]) -> list[str]:
    """The names of the keys allowed in the table at `path` below `model`."""
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
