"""Networks as ONNX writes them, in tests that have no package for it.

Protocol buffers by hand: a field is its number and kind, then its content; see onnx.proto for the numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def network(nodes: Sequence[bytes], constants: Sequence[bytes], entry: bytes, result: bytes) -> bytes:
    """The file of a network with one input and one output."""
    graph = b"".join(_field(1, one) for one in nodes) + _field(2, b"network")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, entry) + _field(12, result)
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))  # IR version 8, operators version 13


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes) -> bytes:
    names = [_field(1, name.encode()) for name in inputs] + [_field(2, name.encode()) for name in outputs]
    return b"".join(names) + _field(4, kind.encode()) + b"".join(_field(5, attribute) for attribute in attributes)


def integer(name: str, value: int) -> bytes:
    return _field(1, name.encode()) + _number(3, value) + _number(20, 2)


def ints(name: str, values: Sequence[int]) -> bytes:
    return _field(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, 7)


def tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sizes = b"".join(_number(1, size) for size in shape)
    return sizes + _number(2, 1) + _field(8, name.encode()) + _field(9, struct.pack(f"<{len(values)}f", *values))


def value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in shape]
    tensor = _number(1, 1) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
