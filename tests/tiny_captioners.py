"""Captioning models of the real architectures with random weights, small enough to be made and asked in a test."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tiny_models import byte_alphabet

SIDE = 64  # pixels that the tiny Florence-2 looks at
_TOKENS = (SIDE // 32) ** 2 + 1  # one a patch after its four stages, and one for their mean
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def write_tiny_florence2(folder: Path, seed: int = 0) -> Path:
    """Write a random Florence-2 (DaViT, projector, BART) with its processor; it answers in small letters and spaces."""
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    processor = _processor()
    tokenizer = processor.tokenizer
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        config = Florence2Config(
            vision_config={
                "depths": (1, 1, 1, 1), "embed_dim": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2),
                "num_groups": (1, 1, 2, 2), "window_size": 2, "projection_dim": 16, "initializer_range": 0.3,
            },
            text_config={
                "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": 128,
                "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.5,
                "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
            },
            image_token_id=tokenizer.image_token_id, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        )  # fmt: skip
        model = Florence2ForConditionalGeneration(config)
    finally:
        torch.set_rng_state(state)
    spoken = {tokenizer.convert_tokens_to_ids(token) for token in "Ġabcdefghijklmnopqrstuvwxyz"}
    model.generation_config.update(
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, num_beams=3,
        suppress_tokens=[token for token in range(len(tokenizer)) if token not in spoken | {2}],
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> Any:
    from transformers import BartTokenizer, CLIPImageProcessorPil, Florence2Processor

    words = {word: number for number, word in enumerate((*_SPECIAL, *byte_alphabet()))}
    tokenizer = BartTokenizer(vocab=words, merges=[], extra_special_tokens={"image_token": "<image>"})
    images = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_seq_length=_TOKENS)
    return Florence2Processor(images, tokenizer, post_processor_config={"pure_text": {}})


# a tagger, as ONNX writes it


TAGS = (("general", "9"), ("dark_blue", "0"), ("pale_green", "0"), ("^_^", "0"), ("luna_(cat)", "4"))
# What each tag gets by itself, and for blue, green and red: other channel orders and other ranges find other tags.
_ROWS = (
    (4.0, -2.0, -2.0, 1.0, -8.0),
    (0.0, 6.0, -6.0, 0.0, 12.0),
    (0.0, -6.0, 6.0, 0.0, 0.0),
    (0.0, -2.0, -2.0, 0.0, 0.0),
)


def write_tiny_tagger(folder: Path, side: int = 16, rows: Sequence[Sequence[float]] = ()) -> Path:
    """Write a WD tagger: the mean of each channel (B, G, R) over 255, one linear layer, a sigmoid.

    The first of `rows` is the bias, the others are the weights of blue, green and red.
    """
    bias, *weights = rows or _ROWS
    count = len(bias)
    nodes = [
        _node("ReduceMean", ["pixels"], ["means"], _ints("axes", (1, 2)), _int("keepdims", 0)),
        _node("Div", ["means", "most"], ["shares"]),
        _node("MatMul", ["shares", "weights"], ["sums"]),
        _node("Add", ["sums", "bias"], ["logits"]),
        _node("Sigmoid", ["logits"], ["scores"]),
    ]
    constants = [
        _tensor("most", (), [255.0]),
        _tensor("weights", (3, count), [value for row in weights for value in row]),
        _tensor("bias", (count,), bias),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tagger")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, _value("pixels", ("batch", side, side, 3))) + _field(12, _value("scores", ("batch", count)))
    model = _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))  # IR version 8, operators version 13
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    lines = [f"{number},{name},{category},9" for number, (name, category) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    return folder


# Protocol buffers by hand: a field is its number and kind, then its content; see onnx.proto for the numbers.


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


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes) -> bytes:
    names = [_field(1, name.encode()) for name in inputs] + [_field(2, name.encode()) for name in outputs]
    return b"".join(names) + _field(4, kind.encode()) + b"".join(_field(5, attribute) for attribute in attributes)


def _int(name: str, value: int) -> bytes:
    return _field(1, name.encode()) + _number(3, value) + _number(20, 2)


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _field(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, 7)


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sizes = b"".join(_number(1, size) for size in shape)
    return sizes + _number(2, 1) + _field(8, name.encode()) + _field(9, struct.pack(f"<{len(values)}f", *values))


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in shape]
    tensor = _number(1, 1) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))
