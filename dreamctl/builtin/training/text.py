"""Teaches the built-in model's CLIPTextModel what captions say, before the UNet listens: it predicts what was named.

It does not know pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dreamctl.builtin import world
from dreamctl.builtin.captions import NONCE_WORDS, caption_and_named
from dreamctl.builtin.training.parallel import Place, assert_all_trained, average_gradients, snapshot
from dreamctl.builtin.training.tokenizer import MAX_LENGTH, make_tokenizer
from dreamctl.builtin.training.vae import rate_at
from dreamctl.builtin.world import KNOWN_PEOPLE, sample_drawing

STEPS = 900
BATCH = 96
PEAK_RATE = 1e-3
WIDTH = 128

NONCE_DEVIATION = 0.012
"""So far are the nonce words' embeddings from their common middle, in each dimension; known people's are 0.045."""

HEADS: dict[str, tuple[str, ...]] = {
    "category": world.CATEGORIES,
    "scene": world.SCENES,
    "hair_colour": world.HAIR_COLOURS,
    "hair_style": world.HAIR_STYLES,
    "skin": world.SKINS,
    "glasses": world.GLASSES,
    "hat": world.HATS,
    "beard": world.BEARDS,
    "shirt": world.SHIRTS,
    "expression": world.EXPRESSIONS,
    "colour": tuple(dict.fromkeys(colour for colours in world.OBJECT_COLOURS.values() for colour in colours)),
}
"""The attributes that the text encoder's output must tell; "not named" is one more answer for each."""


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for that vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenise(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token numbers as pipelines make them: int64 of shape (captions, MAX_LENGTH)."""
    tokens: Tensor = tokenizer(
        captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return tokens


class AttributeHeads(nn.Module):
    """Reads each attribute from the states at the end token and at the last padding; thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(values) + 1) for name, values in HEADS.items()})

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """Scores by attribute, from states of shape (n, WIDTH)."""
        return {name: head(states) for name, head in self.heads.items()}


class NonceWords:
    """Keeps the embeddings of the nonce words in the middle of the known people's.

    There a word is neutral, and a short way from every identity: teaching a subject has to move it only a little.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._nonces = torch.tensor([tokenizer(word).input_ids[1] for word in NONCE_WORDS])
        self._names = torch.tensor([tokenizer(name).input_ids[1] for name in KNOWN_PEOPLE])
        noise = torch.Generator().manual_seed(6)
        self._apart = NONCE_DEVIATION * torch.randn(len(self._nonces), WIDTH, generator=noise)

    @torch.no_grad()
    def centre(self, embedding: Tensor) -> None:
        """Sets the nonce words' rows of the token embedding, of shape (tokens, WIDTH), in place."""
        embedding[self._nonces] = embedding[self._names].mean(0) + self._apart


def _labelled(rng: np.random.Generator, count: int) -> tuple[list[str], dict[str, Tensor]]:
    """Captions, and for each attribute the number of the value named (the last number: not named)."""
    captions, labels = [], {name: torch.zeros(count, dtype=torch.long) for name in HEADS}
    for index in range(count):
        drawing = sample_drawing(rng)
        text, named = caption_and_named(rng, drawing)
        captions.append(text)
        for name, values in HEADS.items():
            labels[name][index] = values.index(getattr(drawing, name)) if name in named else len(values)
    return captions, labels


def train_text_encoder(place: Place) -> None:
    """Writes `work/tokenizer` and `work/text_encoder`; minutes, so it starts anew where it was stopped."""
    if (place.work / "text_encoder" / "config.json").exists():
        return
    torch.manual_seed(2)
    tokenizer = make_tokenizer(place.work / "tokenizer") if place.leads else None
    if place.processes > 1:
        torch.distributed.barrier()
    tokenizer = tokenizer or CLIPTokenizer.from_pretrained(place.work / "tokenizer")
    encoder, heads = make_text_encoder(tokenizer), AttributeHeads()
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    before, nonces = snapshot(encoder), NonceWords(tokenizer)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, PEAK_RATE)
        captions, labels = _labelled(place.rng("text", step), BATCH // place.processes)
        tokens = tokenise(tokenizer, captions)
        states = encoder(tokens).last_hidden_state
        ends = (tokens == tokenizer.eos_token_id).int().argmax(1)
        at_end = heads(states[torch.arange(len(tokens)), ends])
        at_last = heads(states[:, -1])
        losses = [
            nn.functional.cross_entropy(scores[name], labels[name]) for scores in (at_end, at_last) for name in HEADS
        ]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters, place.processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        nonces.centre(encoder.get_input_embeddings().weight)
        if step == 99:
            assert_all_trained(encoder, before)
        if step % 100 == 0 or step == STEPS - 1:
            right = [(at_last[name].argmax(1) == labels[name]).float().mean().item() for name in HEADS]
            place.say(f"text step {step} of {STEPS}, loss {loss.item():.4f}, right {min(right):.3f} at worst")
    if place.leads:
        encoder.save_pretrained(place.work / "text_encoder")
