"""What has been taught, by which run, into which model version: one SQLite file.

Many processes may write at once (WAL, `BEGIN IMMEDIATE`, a busy timeout); what was acknowledged survives `kill -9`.
It can be rebuilt from run folders at any time, so it holds nothing that they do not.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.identifiers import identifier_key
from dreamctl.domain.run import ModelFile, RunRecord, State, Target
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, did_you_mean
from dreamctl.files import locked
from dreamctl.migrations import MIGRATIONS

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class RunRow:
    """A run as the registry knows it. `updated`: UTC, ISO 8601."""

    id: str
    project: str
    key: str
    state: State
    identifier: str
    category: str
    target: Target
    backend: str
    remote_id: str | None
    base: str
    created: str
    updated: str


@dataclass(frozen=True)
class Version:
    """Weights that know a concept: `sks@2` is the second of (sks, target, base digest)."""

    run_id: str
    identifier: str
    number: int
    target: Target
    family: str
    format: str
    base: str
    base_digest: str
    digest: str
    steps: int
    created: str

    @property
    def name(self) -> str:
        return f"{self.identifier}@{self.number}"


class Registry:
    """The open registry; one connection, for one process and thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Registry:
        """Open, create and migrate the file. Raises DreamctlError when it is damaged or of a newer program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(path):
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            registry = cls(connection, path)
            version = registry._version()
            if version > len(MIGRATIONS):
                raise DreamctlError(
                    f"{path} was written by a newer dreamctl (schema {version})", hint="upgrade dreamctl"
                )
            if version < len(MIGRATIONS) or registry._journal() != "wal":
                registry._prepare()
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        return registry

    def close(self) -> None:
        self._db.close()

    # concepts

    def concept(self, identifier: str) -> Concept | None:
        """The concept of an identifier or of a human name."""
        key = identifier_key(identifier)
        row = self._one("SELECT * FROM concepts WHERE key = ? OR name_key = ?", key, key)
        return _concept(row) if row else None

    def concepts(self) -> list[Concept]:
        return [_concept(row) for row in self._all("SELECT * FROM concepts ORDER BY id")]

    def add_concept(self, concept: Concept, when: str) -> Concept:
        """Store the concept, or return the stored one. Raises InvalidInput when the identifier means something else."""
        with self._transaction():
            return self._add_concept(concept, when)

    def _add_concept(self, concept: Concept, when: str) -> Concept:
        stored = self.concept(concept.identifier)
        if stored is None:
            self._check_name(concept)
            self._db.execute(
                "INSERT INTO concepts (key, identifier, category, kind, name, name_key, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    identifier_key(concept.identifier), concept.identifier, concept.category, concept.kind.value,
                    concept.name, identifier_key(concept.name) if concept.name else None, when,
                ),
            )  # fmt: skip
            return concept
        if (stored.category.casefold(), stored.kind) != (concept.category.casefold(), concept.kind):
            owner = f"{stored.identifier!r} ({stored.category}, {stored.kind})"
            raise InvalidInput(
                f"identifier {concept.identifier!r} is taken by {owner}",
                field="identifier",
                hint="choose another --identifier, or the same --category and --kind to teach it more",
            )
        if concept.name and concept.name != stored.name:
            self._check_name(concept)
            self._db.execute(
                "UPDATE concepts SET name = ?, name_key = ? WHERE key = ?",
                (concept.name, identifier_key(concept.name), identifier_key(stored.identifier)),
            )
            return stored.model_copy(update={"name": concept.name})
        return stored

    def _check_name(self, concept: Concept) -> None:
        other = self.concept(concept.name) if concept.name else None
        if other and identifier_key(other.identifier) != identifier_key(concept.identifier):
            raise InvalidInput(f"the name {concept.name!r} is taken by {other.identifier!r}", field="name")

    # runs

    def record_run(self, record: RunRecord, concept: Concept, base: str, backend: str, state: State, when: str) -> None:
        """Store a run, or bring a known one up to date. Idempotent by run id."""
        with self._transaction():
            self._add_concept(concept, when)
            self._db.execute(
                "INSERT INTO runs "
                "(id, project, key, pictures, state, concept, target, backend, base, created, updated) "
                "VALUES (?, ?, ?, ?, ?, (SELECT id FROM concepts WHERE key = ?), ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated = excluded.updated",
                (
                    record.id, record.project, record.key, record.pictures, state.value,
                    identifier_key(concept.identifier), record.target.value, backend, base, record.created, when,
                ),
            )  # fmt: skip

    def set_state(self, run_id: str, state: State, when: str) -> None:
        self._write("UPDATE runs SET state = ?, updated = ? WHERE id = ?", state.value, when, run_id)

    def set_remote_id(self, run_id: str, remote_id: str) -> None:
        self._write("UPDATE runs SET remote_id = ? WHERE id = ?", remote_id, run_id)

    def run(self, run_id: str) -> RunRow | None:
        row = self._one(f"{_RUNS} WHERE runs.id = ?", run_id)
        return _run(row) if row else None

    def runs(self) -> list[RunRow]:
        """All runs, oldest first."""
        return [_run(row) for row in self._all(f"{_RUNS} ORDER BY runs.id")]

    def runs_of_key(self, key: str) -> list[RunRow]:
        """The runs of the same data, captions, recipe, concept and target, newest first."""
        return [_run(row) for row in self._all(f"{_RUNS} WHERE runs.key = ? ORDER BY runs.id DESC", key)]

    def remove_run(self, run_id: str) -> None:
        """Forget a run and the versions that it made."""
        self._write("DELETE FROM runs WHERE id = ?", run_id)

    # model versions

    def add_version(self, run_id: str, target: Target, model: ModelFile, when: str) -> list[Version]:
        """Register what a run made, for each concept in it. Idempotent by run id."""
        with self._transaction():
            known = self._versions("WHERE versions.run = ?", run_id)
            if known:
                return known
            for concept in model.concepts:
                self._add_concept(concept, when)
                self._db.execute(
                    "INSERT INTO versions (run, concept, number, target, family, format, base, base_digest, digest, "
                    "steps, created) SELECT ?, c.id, 1 + coalesce((SELECT max(number) FROM versions "
                    "WHERE concept = c.id AND target = ? AND base_digest = ?), 0), ?, ?, ?, ?, ?, ?, ?, ? "
                    "FROM concepts c WHERE c.key = ?",
                    (
                        run_id, target.value, model.base_digest, target.value, model.family, model.format, model.base,
                        model.base_digest, model.digest, model.steps, when, identifier_key(concept.identifier),
                    ),
                )  # fmt: skip
            return self._versions("WHERE versions.run = ?", run_id)

    def versions(self, identifier: str | None = None) -> list[Version]:
        """All model versions, or one identifier's, oldest first."""
        if identifier is None:
            return self._versions("")
        return self._versions("WHERE concepts.key = ?", identifier_key(identifier))

    def remove_version(self, version: Version) -> None:
        """Forget one version of one concept; the concept stays, since its identifier is still taught elsewhere."""
        self._write(
            "DELETE FROM versions WHERE run = ? AND concept = (SELECT id FROM concepts WHERE key = ?)",
            version.run_id, identifier_key(version.identifier),
        )  # fmt: skip

    def remove_concept(self, identifier: str) -> None:
        """Free an identifier. Raises InvalidInput while runs or versions of it are there."""
        try:
            self._write("DELETE FROM concepts WHERE key = ?", identifier_key(identifier))
        except sqlite3.IntegrityError as error:
            raise InvalidInput(f"{identifier!r} still has runs or versions", field="identifier") from error

    def _versions(self, where: str, *values: object) -> list[Version]:
        rows = self._all(
            "SELECT versions.*, concepts.identifier FROM versions JOIN concepts ON concepts.id = versions.concept "
            f"{where} ORDER BY concepts.id, versions.created, versions.run",
            *values,
        )
        return [_version(row) for row in rows]

    # datasets

    def record_dataset(self, path: Path, project: Path, digests: tuple[str, str], identifier: str, when: str) -> None:
        """Remember a dataset's folder, its digests (pictures, captions) when last used, and what it was taught as."""
        self._write(
            "INSERT INTO datasets (path, project, pictures, captions, identifier, used) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT (path) DO UPDATE SET pictures = excluded.pictures, captions = excluded.captions, "
            "identifier = excluded.identifier, used = excluded.used",
            str(path), str(project), *digests, identifier, when,
        )  # fmt: skip

    def taught_as(self, dataset: Path, pictures: str) -> Concept | None:
        """The concept that these pictures were last taught as, or else what last lay in this folder."""
        row = self._one(
            "SELECT identifier FROM concepts JOIN runs ON concepts.id = runs.concept "
            "WHERE runs.pictures = ? ORDER BY runs.id DESC LIMIT 1",
            pictures,
        ) or self._one("SELECT identifier FROM datasets WHERE path = ?", str(dataset))
        return self.concept(row["identifier"]) if row else None

    # the file

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _journal(self) -> str:
        return str(self._db.execute("PRAGMA journal_mode").fetchone()[0])

    def _prepare(self) -> None:
        """Set WAL and migrate, one process at a time: setting WAL on a new file ignores the busy timeout."""
        with locked(self.path.with_suffix(".lock"), "migrating the registry"):
            if self._journal() != "wal":
                self._db.execute("PRAGMA journal_mode = WAL")
            before = self._version()
            if 0 < before < len(MIGRATIONS):
                self._back_up(before)
            for number, migration in enumerate(MIGRATIONS[before:], start=before + 1):
                with self._transaction():
                    migration(self._db)
                    self._db.execute(f"PRAGMA user_version = {number}")

    def _back_up(self, version: int) -> None:
        copy = self.path.with_name(f"{self.path.stem}.schema-{version}.{int(time.time())}.db")
        target = sqlite3.connect(copy)
        try:
            self._db.backup(target)
        finally:
            target.close()
        copy.chmod(0o600)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction():
            self._db.execute(statement, values)

    def _one(self, statement: str, *values: object) -> sqlite3.Row | None:
        rows = self._all(statement, *values)
        return rows[0] if rows else None

    def _all(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with _explained(self.path):
            return list(self._db.execute(statement, values))


def find_version(versions: list[Version], name: str) -> Version:
    """The version that `sks` (the newest), `sks@2` or a run's id names.

    Raises NotFound with the nearest identifier, InvalidInput where versions on several bases share the name.
    """
    identifier, _, number = name.partition("@")
    key = identifier_key(identifier)
    found = [item for item in versions if identifier_key(item.identifier) == key or item.run_id == name]
    if not found:
        known = {item.identifier for item in versions}
        raise NotFound(
            f"no model version of {identifier!r}",
            field="identifier",
            hint=did_you_mean(identifier, known) if known else "teach one with `dreamctl train`",
        )
    if not number:
        return found[-1]
    found = [item for item in found if str(item.number) == number]
    if not found:
        raise NotFound(f"no version {name!r}", hint="`dreamctl identifiers` lists them")
    if len(found) > 1:
        runs = ", ".join(item.run_id for item in found)
        raise InvalidInput(f"{name!r} is there on {len(found)} bases", hint=f"name the run instead: {runs}")
    return found[0]


_RUNS = "SELECT runs.*, concepts.identifier, concepts.category FROM runs JOIN concepts ON concepts.id = runs.concept"


def _concept(row: sqlite3.Row) -> Concept:
    return Concept(identifier=row["identifier"], category=row["category"], kind=Kind(row["kind"]), name=row["name"])


def _run(row: sqlite3.Row) -> RunRow:
    values = {key: row[key] for key in RunRow.__dataclass_fields__}
    return RunRow(**{**values, "state": State(row["state"]), "target": Target(row["target"])})


def _version(row: sqlite3.Row) -> Version:
    values = {key: row[key] for key in Version.__dataclass_fields__ if key != "run_id"}
    return Version(**{**values, "run_id": row["run"], "target": Target(row["target"])})


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate SQLite's errors into a sentence that names the file. Broken rules of the schema pass through."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        hint = "free some space" if "full" in str(error) else "check its folder's permissions, or that no program hangs"
        raise DreamctlError(f"cannot use the registry {path}: {error}", hint=hint) from error
    except sqlite3.DatabaseError as error:
        raise DreamctlError(
            f"the registry {path} is damaged: {error}",
            hint="move it away; the next command rebuilds it from the run folders beside it",
        ) from error
