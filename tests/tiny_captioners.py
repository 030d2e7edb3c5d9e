"""Captioning models of the real architectures with random weights, small enough to be made and asked in a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tiny_models import byte_alphabet
from tests.tiny_onnx import integer, ints, network, node, tensor, value

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
        node("ReduceMean", ["pixels"], ["means"], ints("axes", (1, 2)), integer("keepdims", 0)),
        node("Div", ["means", "most"], ["shares"]),
        node("MatMul", ["shares", "weights"], ["sums"]),
        node("Add", ["sums", "bias"], ["logits"]),
        node("Sigmoid", ["logits"], ["scores"]),
    ]
    constants = [
        tensor("most", (), [255.0]),
        tensor("weights", (3, count), [weight for row in weights for weight in row]),
        tensor("bias", (count,), bias),
    ]
    model = network(nodes, constants, value("pixels", ("batch", side, side, 3)), value("scores", ("batch", count)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    lines = [f"{number},{name},{category},9" for number, (name, category) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    return folder
