"""Files of weights are looked at, never opened: a header that lies is one sentence, however it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamctl.errors import DreamctlError
from dreamctl.weights import check_safetensors, tensor_names

SPAN = "data_offsets"


def file_of(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(*offsets: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], SPAN: list(offsets)}


def test_a_whole_file_tells_its_metadata(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": tensor(4, 8), "a": tensor(0, 4)}
    file = file_of(tmp_path / "w", header)
    assert check_safetensors(file) == {"format": "pt"}
    assert tensor_names(file) == ["b", "a"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": tensor(0, 8, 9)}, "cannot be read"),
        ({"w": tensor(8)}, "cannot be read"),
        ({"w": tensor("0", "8")}, "cannot be read"),
        ({"w": tensor(0.0, 8.5)}, "cannot be read"),
        ({"w": tensor(False, 8)}, "cannot be read"),
        ({"w": {SPAN: {"0": 8}}}, "cannot be read"),
        ({"w": {SPAN: 8}}, "cannot be read"),
        ({"w": {"shape": [2]}}, "cannot be read"),
        ({"w": 1}, "cannot be read"),
        ({"w": None}, "cannot be read"),
        ([], "cannot be read"),
        ({"__metadata__": [], "w": tensor(0, 8)}, "cannot be read"),
        (b'{"w":{"data_offsets":[0,1e999]}}', "cannot be read"),
        (b'{"w":{"data_offsets":[0,' + b"9" * 5000 + b"]}}", "cannot be read"),
        (b'{"w":' + b"[" * 200_000, "cannot be read"),
        (b'{"\xff":1}', "cannot be read"),
        ({"w": tensor(0, 10**30)}, "is damaged"),
        ({"w": tensor(-8, 0)}, "is damaged"),
        ({"a": tensor(0, 8), "b": tensor(4, 8)}, "is damaged"),
        ({"w": tensor(0, 4)}, "is damaged"),
        ({"__metadata__": {}}, "holds no weights"),
    ],
    ids=range(21),
)
def test_a_header_that_lies_is_one_sentence(tmp_path: Path, header: Any, message: str) -> None:
    with pytest.raises(DreamctlError, match=rf"^the weights .*{message}"):
        check_safetensors(file_of(tmp_path / "w", header), "the weights")


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 8, bytes(8), b"\xff" * 64])
def test_so_is_a_file_without_one(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(DreamctlError, match="no safetensors file"):
        check_safetensors(tmp_path / "w")
    with pytest.raises(DreamctlError, match="no safetensors file"):
        tensor_names(tmp_path / "w")
