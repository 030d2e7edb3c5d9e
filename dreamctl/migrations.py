"""The registry's schema as a list of small steps; `PRAGMA user_version` counts those that were taken.

Each runs once, in a transaction of its own. Steps are appended, never edited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable


def concepts_runs_versions_datasets(db: sqlite3.Connection) -> None:
    """The first schema."""
    db.execute(
        "CREATE TABLE concepts (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, identifier TEXT NOT NULL, "
        "category TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, name_key TEXT UNIQUE, created TEXT NOT NULL) STRICT"
    )
    db.execute(
        "CREATE TABLE runs (id TEXT PRIMARY KEY, project TEXT NOT NULL, key TEXT NOT NULL, pictures TEXT NOT NULL, "
        "state TEXT NOT NULL, "
        "concept INTEGER NOT NULL REFERENCES concepts, target TEXT NOT NULL, backend TEXT NOT NULL, remote_id TEXT, "
        "base TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL) STRICT"
    )
    db.execute("CREATE INDEX runs_by_key ON runs (key)")
    db.execute("CREATE INDEX runs_by_pictures ON runs (pictures)")
    db.execute(
        "CREATE TABLE versions (run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, "
        "concept INTEGER NOT NULL REFERENCES concepts, number INTEGER NOT NULL, target TEXT NOT NULL, "
        "family TEXT NOT NULL, format TEXT NOT NULL, base TEXT NOT NULL, base_digest TEXT NOT NULL, "
        "digest TEXT NOT NULL, steps INTEGER NOT NULL, created TEXT NOT NULL, PRIMARY KEY (run, concept), "
        "UNIQUE (concept, target, base_digest, number)) STRICT"
    )
    db.execute(
        "CREATE TABLE datasets (path TEXT PRIMARY KEY, project TEXT NOT NULL, files TEXT NOT NULL, "
        "identifier TEXT NOT NULL, used TEXT NOT NULL) STRICT"
    )


def uploads(db: sqlite3.Connection) -> None:
    """Where archives and files were uploaded to: never a URL, which is signed again from this."""
    db.execute(
        "CREATE TABLE uploads (source TEXT NOT NULL, project TEXT NOT NULL, storage TEXT NOT NULL, "
        "access TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, "
        "content TEXT NOT NULL, stamp TEXT NOT NULL, public INTEGER NOT NULL, uploaded TEXT NOT NULL, "
        "PRIMARY KEY (source, storage, key)) STRICT"
    )


def progress_of_runs(db: sqlite3.Connection) -> None:
    """What `status` tells of a run, so that thousands that have ended are told without opening a file of theirs.

    `stamp` is of the events' file that the rest was read from; "" where nothing was read yet.
    """
    for column in ("name TEXT", "message TEXT", "method TEXT NOT NULL DEFAULT ''", "stamp TEXT NOT NULL DEFAULT ''"):
        db.execute(f"ALTER TABLE runs ADD COLUMN {column}")
    for column in ("step", "steps"):
        db.execute(f"ALTER TABLE runs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    db.execute("CREATE INDEX runs_by_name ON runs (name) WHERE name IS NOT NULL")
    db.execute("CREATE INDEX runs_by_remote_id ON runs (remote_id) WHERE remote_id IS NOT NULL")


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [concepts_runs_versions_datasets, uploads, progress_of_runs]
