"""What was uploaded and where it lies. No URL: a signed one is a secret, and is signed again from this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Upload:
    """A dataset's folder or a file (`source`), and the object that holds it.

    `access`: how the storage was reached, as JSON. `content`: the dataset's digests, `stamp`: the file's; "" where it
    is the other. `uploaded`: ISO time.
    """

    source: str
    project: str
    storage: str
    access: str
    key: str
    sha256: str
    bytes: int
    content: str
    stamp: str
    public: bool
    uploaded: str
