"""Encoders that are not needed again are out of memory before the first step."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from dreamctl.training.progress import Reporter
from dreamctl.training.session import Session
from dreamctl.training.stop import Stop
from tests.training.school import FULL, LORA, make_run

BARE: dict[str, Any] = {"prior": {"pictures": 0}}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([LORA], {"unet"}),
        ([FULL], {"unet", "text_encoder"}),
        ([LORA, {"samples": {"every": 2}}], {"unet", "vae", "text_encoder"}),
        ([LORA, {"samples": {"every": 2, "prompts": []}}], {"unet"}),
    ],
)
def test_encoders_are_freed(tmp_path: Path, tiny: Path, changes: list[dict[str, Any]], kept: set[str]) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    run = make_run(tmp_path, tiny, BARE, *changes)
    session = Session(run, Reporter(None), Stop(run.path))
    model = session.family.open(session.resolved)
    alive = {name: weakref.ref(component) for name, component in model.components.items()}
    _instances, _classes, texts = session._encode(model, [])
    gc.collect()
    assert {name for name, reference in alive.items() if reference() is not None} == kept
    assert set(texts.batch([""])) == ({"ids", "mask"} if changes == [FULL] else {"prompt"})
