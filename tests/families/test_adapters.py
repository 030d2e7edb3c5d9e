"""Adapter files: equal weights are equal bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamctl.families.adapters import settle_header


def test_a_settled_header_is_the_same_whatever_the_order_of_the_metadata(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(5, dtype=torch.float16)}
    metadata = {f"key {number}": "x" * number for number in range(9)}
    files = []
    for number in range(6):
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file, metadata)
        settle_header(file)
        files.append(file.read_bytes())
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == metadata
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(file).items())
    assert len(set(files)) == 1
