"""A tiny real model, and one thread: a test must be quick beside others."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_models import tiny, tiny_v

__all__ = ["tiny", "tiny_v"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes that a test starts
