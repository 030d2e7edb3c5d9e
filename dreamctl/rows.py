"""Rows of the registry as values."""

from __future__ import annotations

import sqlite3

from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.run import State, Target
from dreamctl.domain.uploads import Upload
from dreamctl.domain.versions import RunRow, Version

_OF_CONCEPTS = {"identifier": "identifier", "category": "category", "kind": "kind", "human_name": "name"}
_COLUMNS = ", ".join(
    f"concepts.{_OF_CONCEPTS[name]}" if name in _OF_CONCEPTS else f"runs.{name}" for name in RunRow.__dataclass_fields__
)
RUNS = f"SELECT {_COLUMNS} FROM runs JOIN concepts ON concepts.id = runs.concept"
_ENUMERATED = {
    place: kind
    for place, name in enumerate(RunRow.__dataclass_fields__)
    if (kind := {"state": State, "target": Target, "kind": Kind}.get(name))
}


def concept_of(row: sqlite3.Row) -> Concept:
    return Concept(identifier=row["identifier"], category=row["category"], kind=Kind(row["kind"]), name=row["name"])


def run_of(row: sqlite3.Row) -> RunRow:
    values = list(row)  # in the order of the fields; thousands are read at a time
    for place, kind in _ENUMERATED.items():
        values[place] = kind(values[place])
    return RunRow(*values)


def upload_of(row: sqlite3.Row) -> Upload:
    values = {key: row[key] for key in Upload.__dataclass_fields__}
    return Upload(**{**values, "public": bool(row["public"])})


def version_of(row: sqlite3.Row) -> Version:
    values = {key: row[key] for key in Version.__dataclass_fields__ if key != "run_id"}
    return Version(**{**values, "run_id": row["run"], "target": Target(row["target"])})
