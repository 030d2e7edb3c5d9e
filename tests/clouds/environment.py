"""The environment with the providers' own code (`.clouds`): its Python, for what tests start there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.servers.base import ROOT, Missing


def clouds_python() -> Path:
    """The Python that has the SDKs of RunPod and Replicate, Cog's server, and dreamctl with torch. Raises Missing."""
    folder = Path(os.environ.get("DREAMCTL_TEST_CLOUDS_BIN") or ROOT / ".clouds" / "bin")
    if not (folder.parent / "ready").exists() or not (folder / "python").exists():
        raise Missing(f"needs the providers' own code in {folder.parent}: `make servers`")
    return folder / "python"


@pytest.fixture(scope="session", name="clouds_python")
def clouds_python_or_skip() -> Path:
    """`clouds_python()`; without it a test is skipped, or fails where `DREAMCTL_TEST_SERVERS=required`."""
    try:
        return clouds_python()
    except Missing as missing:
        if os.environ.get("DREAMCTL_TEST_SERVERS") == "required":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
