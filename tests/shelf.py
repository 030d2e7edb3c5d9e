"""A storage for tests, `shelf://bucket/prefix`: any keys, a log of what was asked, downloads as slow as wanted.

A bucket is a folder of `DREAMCTL_TEST_SHELF` with one file for each object: its key as JSON in a line, and its bytes.
`python -m tests.shelf WORDS` is dreamctl with this storage.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dreamctl import plugins
from dreamctl.errors import NotFound
from dreamctl.storage.base import Access, Progress, StoredObject, bucket_and_prefix, checked_key
from dreamctl.storage.receiving import receive

ENTRY = {"shelf": "tests.shelf:Shelf"}
FOLDER, SLOW = "DREAMCTL_TEST_SHELF", "DREAMCTL_TEST_SHELF_SLOW"
LOG = ".log"
_PIECE = 1 << 14


class Shelf:
    """What `prepare` uses of a storage."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        bucket, self.prefix = bucket_and_prefix(url, "shelf")
        self.folder = Path(os.environ[FOLDER], bucket)

    def head(self, key: str) -> StoredObject | None:
        self.log("head", key)
        path = file_of(self.folder, self.prefix + checked_key(key))
        return stored(key, content(path)[1]) if path.is_file() else None

    def list(self, prefix: str = "", recursive: bool = True) -> Iterator[StoredObject]:
        self.log("list", prefix)
        if not self.folder.is_dir():
            raise NotFound(f"there is no bucket {self.folder.name!r}")
        for path in self.folder.iterdir():
            full, data = content(path)
            key = full.removeprefix(self.prefix)
            if full.startswith(self.prefix + prefix) and (recursive or "/" not in key[len(prefix) :]):
                yield stored(key, data)

    def get(self, key: str, target: Path, progress: Progress | None = None) -> StoredObject:
        self.log("get", key)
        path = file_of(self.folder, self.prefix + checked_key(key))
        if not path.is_file():
            raise NotFound(f"{key} is not there")
        data = content(path)[1]

        def pieces(start: int) -> Iterator[bytes]:
            for place in range(start, len(data), _PIECE):
                self.log("read", f"{key} {place}")
                time.sleep(float(os.environ.get(SLOW, "0")))
                yield data[place : place + _PIECE]

        return receive(stored(key, data), target, pieces, progress)

    def log(self, word: str, key: str) -> None:
        with open(self.folder.parent / LOG, "a") as log:
            log.write(f"{word} {key}\n")


def file_of(folder: Path, key: str) -> Path:
    return folder / hashlib.sha256(key.encode()).hexdigest()


def write(folder: Path, key: str, data: bytes) -> None:
    file_of(folder, key).write_bytes(json.dumps(key).encode() + b"\n" + data)


def content(path: Path) -> tuple[str, bytes]:
    """The key and the bytes of an object."""
    key, _, data = path.read_bytes().partition(b"\n")
    return json.loads(key), data


def stored(key: str, data: bytes) -> StoredObject:
    digest = hashlib.sha256(data).hexdigest()
    return StoredObject(key, len(data), digest, digest[:16])


if __name__ == "__main__":
    plugins.BUILT_IN["storages"].update(ENTRY)
    from dreamctl.cli.app import main

    sys.exit(main())
