"""A network that cuts out what is white: small, but asked and answering as U²-Net and IS-Net are."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_onnx import integer, ints, network, node, tensor, value

# The mean of a pixel's channels as rembg hands them over: white is 2.4 or 0.5, a colour at most 0 or -0.1.
_BRIGHT = {320: 1.2, 1024: 0.2}


def write_tiny_cutter(file: Path, side: int = 320, channels: int = 3) -> Path:
    """Write a model: white pixels (of a picture whose brightest is white) are the subject, all others are not."""
    nodes = [
        node("ReduceMean", ["picture"], ["grey"], ints("axes", (1,)), integer("keepdims", 1)),
        node("Sub", ["grey", "bright"], ["more"]),
        node("Mul", ["more", "steep"], ["logits"]),
        node("Sigmoid", ["logits"], ["mask"]),
    ]
    constants = [tensor("bright", (), [_BRIGHT.get(side, 0.0)]), tensor("steep", (), [100.0])]
    entry, result = value("picture", (1, channels, side, side)), value("mask", (1, 1, side, side))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(network(nodes, constants, entry, result))
    return file
