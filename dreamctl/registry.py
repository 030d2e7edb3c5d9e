"""What has been taught, by which run, into which model version: one SQLite file.

Many processes may write at once (WAL, `BEGIN IMMEDIATE`, a busy timeout); what was acknowledged survives `kill -9`.
Concepts, runs and versions can be rebuilt from the run folders at any time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from dreamctl.domain.concept import Concept
from dreamctl.domain.identifiers import identifier_key
from dreamctl.domain.run import WORKING, ModelFile, RunRecord, State
from dreamctl.domain.uploads import Upload
from dreamctl.domain.versions import Progress, RunRow, Version
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import locked
from dreamctl.migrations import MIGRATIONS
from dreamctl.rows import RUNS, concept_of, run_of, upload_of, version_of
from dreamctl.sqlite import explained

_BUSY_SECONDS = 30.0


class Registry:
    """The open registry; one connection, for one process and thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Registry:
        """Open, create and migrate the file. Raises DreamctlError when it is damaged or of a newer program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with explained(path):
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            registry = cls(connection, path)
            try:
                registry._begin()
            except BaseException:
                registry.close()
                raise
        return registry

    def close(self) -> None:
        self._db.close()

    def _begin(self) -> None:
        """Bring the file to this program's schema, and the connection to its rules."""
        self._db.row_factory = sqlite3.Row
        version = self._version()
        if version > len(MIGRATIONS):
            raise DreamctlError(
                f"{self.path} was written by a newer dreamctl (schema {version})", hint="upgrade dreamctl"
            )
        if version < len(MIGRATIONS) or self._journal() != "wal":
            self._prepare()
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA synchronous = FULL")

    # concepts

    def concept(self, identifier: str) -> Concept | None:
        """The concept of an identifier or of a human name."""
        key = identifier_key(identifier)
        row = self._one("SELECT * FROM concepts WHERE key = ? OR name_key = ?", key, key)
        return concept_of(row) if row else None

    def concepts(self) -> list[Concept]:
        return [concept_of(row) for row in self._all("SELECT * FROM concepts ORDER BY id")]

    def check_concept(self, concept: Concept) -> None:
        """Raises InvalidInput where the identifier means something else, or the human name somebody else."""
        stored = self.concept(concept.identifier)
        if stored and identifier_key(stored.identifier) != identifier_key(concept.identifier):
            raise InvalidInput(f"{concept.identifier!r} is the human name of {stored.identifier!r}", field="identifier")
        if stored and (stored.category.casefold(), stored.kind) != (concept.category.casefold(), concept.kind):
            owner = f"{stored.identifier!r} ({stored.category}, {stored.kind})"
            raise InvalidInput(
                f"identifier {concept.identifier!r} is taken by {owner}",
                field="identifier",
                hint="choose another --identifier, or the same --category and --kind to teach it more",
            )
        other = self.concept(concept.name) if concept.name else None
        if other and identifier_key(other.identifier) != identifier_key(concept.identifier):
            raise InvalidInput(f"the name {concept.name!r} is taken by {other.identifier!r}", field="name")

    def name_concept(self, concept: Concept) -> None:
        """Store the human name that a known concept has now. Raises InvalidInput where it is somebody else's."""
        with self._transaction():
            self._add_concept(concept, "")

    def _add_concept(self, concept: Concept, when: str) -> None:
        """Inside a transaction: store the concept, or the human name that it now has."""
        self.check_concept(concept)
        self._db.execute(
            "INSERT INTO concepts (key, identifier, category, kind, name, name_key, created) VALUES (?,?,?,?,?,?,?) "
            "ON CONFLICT (key) DO UPDATE SET name = coalesce(excluded.name, name), "
            "name_key = coalesce(excluded.name_key, name_key)",
            (
                identifier_key(concept.identifier), concept.identifier, concept.category, concept.kind.value,
                concept.name, identifier_key(concept.name) if concept.name else None, when,
            ),
        )  # fmt: skip

    # runs

    def add_run(self, record: RunRecord, concept: Concept, base: str, when: str) -> None:
        """Store a new run and its concept. Raises InvalidInput where the identifier means something else."""
        with self._transaction():
            self._add_concept(concept, when)
            self._record(record, concept, base, State.created, when)

    def harvest(
        self,
        record: RunRecord,
        concept: Concept,
        base: str,
        state: State,
        model: ModelFile | None,
        when: str,
        progress: Progress | None = None,
    ) -> list[Version]:
        """Bring a run up to date, and register the version that it made, at once. Idempotent by run id.

        `when` is the time of the run's last event. What the registry says of an identifier or a name stands: an old run
        folder renames nothing.
        """
        with self._transaction():
            if not self._one("SELECT id FROM concepts WHERE key = ?", identifier_key(concept.identifier)):
                free = concept.name and not self.concept(concept.name)
                self._add_concept(concept if free else concept.model_copy(update={"name": None}), when)
            self._record(record, concept, base, state, when)
            if progress:
                told = asdict(progress)
                assignments = ", ".join(f"{name} = ?" for name in told)
                self._db.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*told.values(), record.id))
            if model and not self._versions("WHERE versions.run = ?", record.id):
                self._add_versions(record, model, when)
            return self._versions("WHERE versions.run = ?", record.id)

    def _record(self, record: RunRecord, concept: Concept, base: str, state: State, when: str) -> None:
        self._db.execute(
            "INSERT INTO runs (id, project, key, pictures, state, concept, target, backend, base, created, updated, "
            "name) VALUES (?, ?, ?, ?, ?, (SELECT id FROM concepts WHERE key = ?), ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated = excluded.updated",
            (
                record.id, record.project, record.key, record.pictures, state.value,
                identifier_key(concept.identifier), record.target.value, record.backend, base, record.created, when,
                record.name,
            ),
        )  # fmt: skip

    def _add_versions(self, record: RunRecord, model: ModelFile, when: str) -> None:
        for concept in model.concepts:
            self._db.execute(
                "INSERT INTO versions (run, concept, number, target, family, format, base, base_digest, digest, steps, "
                "created) SELECT ?, c.id, 1 + coalesce((SELECT max(number) FROM versions WHERE concept = c.id "
                "AND target = ? AND base_digest = ?), 0), ?, ?, ?, ?, ?, ?, ?, ? FROM concepts c WHERE c.key = ?",
                (
                    record.id, record.target.value, model.base_digest, record.target.value, model.family, model.format,
                    model.base, model.base_digest, model.digest, model.steps, when, identifier_key(concept.identifier),
                ),
            )  # fmt: skip

    def set_remote_id(self, run_id: str, remote_id: str) -> None:
        self._write("UPDATE runs SET remote_id = ? WHERE id = ?", remote_id, run_id)

    def run(self, run_id: str) -> RunRow | None:
        row = self._one(f"{RUNS} WHERE runs.id = ?", run_id)
        return run_of(row) if row else None

    def runs(self) -> list[RunRow]:
        """All runs, oldest first."""
        return [run_of(row) for row in self._all(f"{RUNS} ORDER BY runs.id")]

    def looks(self) -> dict[str, tuple[State, str]]:
        """State and stamp of every run as it was last looked at; without those that were not yet (no method known)."""
        rows = self._all("SELECT id, state, stamp FROM runs WHERE method != ''")
        return {row["id"]: (State(row["state"]), row["stamp"]) for row in rows}

    def runs_at_work(self) -> list[RunRow]:
        """The runs that had not ended when they were last looked at, oldest first."""
        states = ", ".join("?" * len(WORKING))
        where = f"WHERE runs.state IN ({states}) ORDER BY runs.id"
        return [run_of(row) for row in self._all(f"{RUNS} {where}", *(state.value for state in WORKING))]

    def runs_with_versions(self) -> set[str]:
        """The ids of the runs that made a model version."""
        return {row["run"] for row in self._all("SELECT DISTINCT run FROM versions")}

    def runs_named(self, name: str) -> list[RunRow]:
        """The runs that `train --name` called so, newest first."""
        return [run_of(row) for row in self._all(f"{RUNS} WHERE runs.name = ? ORDER BY runs.id DESC", name)]

    def runs_of_job(self, backend: str, remote_id: str) -> list[RunRow]:
        """The runs that a provider's job belongs to, newest first."""
        where = "WHERE runs.backend = ? AND runs.remote_id = ? ORDER BY runs.id DESC"
        return [run_of(row) for row in self._all(f"{RUNS} {where}", backend, remote_id)]

    def runs_of_key(self, key: str) -> list[RunRow]:
        """The runs of the same data, captions, recipe, concept and target, newest first."""
        return [run_of(row) for row in self._all(f"{RUNS} WHERE runs.key = ? ORDER BY runs.id DESC", key)]

    def remove_run(self, run_id: str) -> None:
        """Forget a run and the version that it made; an identifier that nothing is left of is free again."""
        with self._transaction():
            self._db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
            self._db.execute(
                "DELETE FROM concepts WHERE id NOT IN (SELECT concept FROM runs) "
                "AND id NOT IN (SELECT concept FROM versions)"
            )

    # model versions

    def versions(self, identifier: str | None = None) -> list[Version]:
        """All model versions, or one identifier's, oldest first."""
        if identifier is None:
            return self._versions("")
        return self._versions("WHERE concepts.key = ?", identifier_key(identifier))

    def versions_of_run(self, run_id: str) -> list[Version]:
        """The model versions that a run made."""
        return self._versions("WHERE versions.run = ?", run_id)

    def _versions(self, where: str, *values: object) -> list[Version]:
        rows = self._all(
            "SELECT versions.*, concepts.identifier FROM versions JOIN concepts ON concepts.id = versions.concept "
            f"{where} ORDER BY concepts.id, versions.created, versions.run",
            *values,
        )
        return [version_of(row) for row in rows]

    # datasets

    def record_dataset(self, path: Path, project: Path, files: Collection[str], identifier: str, when: str) -> None:
        """Remember what the dataset in this folder, with pictures of these digests, was taught as."""
        self._write(
            "INSERT INTO datasets (path, project, files, identifier, used) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (path) DO UPDATE SET files = excluded.files, identifier = excluded.identifier, "
            "used = excluded.used",
            str(path), str(project), " ".join(sorted(files)), identifier, when,
        )  # fmt: skip

    def taught_as(self, dataset: Path, pictures: str, files: Collection[str]) -> Concept | None:
        """What these pictures (by their common digest) were taught as, or some of them when they lay in this folder."""
        row = self._one(
            "SELECT identifier FROM concepts JOIN runs ON concepts.id = runs.concept "
            "WHERE runs.pictures = ? ORDER BY runs.id DESC LIMIT 1",
            pictures,
        )
        if row is None:
            row = self._one("SELECT identifier, files FROM datasets WHERE path = ?", str(dataset))
            if row is None or not set(row["files"].split()) & set(files):
                return None
        return self.concept(row["identifier"])

    # uploads

    def record_upload(self, upload: Upload) -> None:
        """Remember where a dataset or file lies now."""
        values = asdict(upload) | {"public": int(upload.public)}
        names = ", ".join(values)
        self._write(
            f"INSERT OR REPLACE INTO uploads ({names}) VALUES ({', '.join('?' * len(values))})", *values.values()
        )

    def last_upload(self, source: str, storage: str | None = None) -> Upload | None:
        """The newest upload of a dataset's folder or of a file, to any storage or to one."""
        row = self._one(
            "SELECT * FROM uploads WHERE source = ? AND (? IS NULL OR storage = ?) ORDER BY uploaded DESC, rowid DESC",
            source, storage, storage,
        )  # fmt: skip
        return upload_of(row) if row else None

    def known_digest(self, source: str, stamp: str) -> str | None:
        """The SHA-256 of a file that was uploaded once, while it has the stamp that it had then."""
        row = self._one("SELECT sha256 FROM uploads WHERE source = ? AND stamp = ? AND stamp != ''", source, stamp)
        return str(row["sha256"]) if row else None

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
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # on a full disk SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction():
            self._db.execute(statement, values)

    def _one(self, statement: str, *values: object) -> sqlite3.Row | None:
        rows = self._all(statement, *values)
        return rows[0] if rows else None

    def _all(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with explained(self.path):
            return list(self._db.execute(statement, values))
