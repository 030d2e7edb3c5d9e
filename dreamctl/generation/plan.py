"""The plan of a generation: which concept the prompt names, which model version knows it, and the prompt as it is used.

Knows no torch: a plan can be shown without a picture being made.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamctl.domain.concept import Concept
from dreamctl.domain.identifiers import RARE_TOKENS, identifier_key
from dreamctl.domain.prompts import concepts_in, expand
from dreamctl.domain.recipe import Base
from dreamctl.domain.run import ModelFile, Target
from dreamctl.errors import InvalidInput, NotFound, did_you_mean

_FORMATS = ("peft", "diffusers")


@dataclass(frozen=True)
class Plan:
    """Everything that decides the pictures. `width`, `height` in pixels; one picture a seed."""

    prompt: str
    negative: str
    base: Base
    model: Path | None
    version: str | None
    concepts: tuple[Concept, ...]
    target: Target
    steps: int
    guidance: float
    width: int
    height: int
    seeds: tuple[int, ...]

    def data(self) -> dict[str, Any]:
        """JSON-ready, with no path: it is embedded in the pictures."""
        return {
            "prompt": self.prompt,
            "negative": self.negative,
            "base": self.base.plain(),
            "version": self.version,
            "concepts": [concept.plain() for concept in self.concepts],
            "target": self.target.value,
            "steps": self.steps,
            "guidance": self.guidance,
            "width": self.width,
            "height": self.height,
            "seeds": list(self.seeds),
        }


@dataclass(frozen=True)
class Meaning:
    """What a prompt says: the concepts that it names, and the text with categories added."""

    concepts: tuple[Concept, ...]
    prompt: str


def read_prompt(prompt: str, taught: Sequence[Concept], target: Target | None) -> Meaning:
    """Find the taught identifiers in a prompt. Raises NotFound for one that nobody taught.

    With target `pretrained` the prompt is left as it is: the base model knows no identifier.
    """
    if not prompt.strip():
        raise InvalidInput("the prompt is empty", field="PROMPT", hint='for example "a photo of sks person on a beach"')
    if target is Target.pretrained:
        return Meaning((), prompt)
    named = concepts_in(prompt, taught)
    known = [word for concept in taught for word in (concept.identifier, concept.name) if word]
    stranger = _stranger(prompt, known)
    if stranger or (target is not None and not named):
        what = f"identifier {stranger!r}" if stranger else "identifier in the prompt"
        near = did_you_mean(stranger, known) if stranger and known else f"taught: {', '.join(known) or 'nothing yet'}"
        raise NotFound(
            f"no {what} that has been taught",
            field="PROMPT",
            hint=f"{near}; teach one with `dreamctl train --identifier {stranger or 'sks'}`",
        )
    if len(named) > 1:
        names = ", ".join(concept.identifier for concept in named)
        raise InvalidInput(
            f"the prompt names several concepts ({names}), which live in models of their own",
            field="PROMPT",
            hint="name one of them in a prompt",
        )
    return Meaning(tuple(named), expand(prompt, taught))


def check_form(model: ModelFile, model_dir: Path) -> None:
    """Raises InvalidInput for weights that dreamctl keeps, and does not draw with."""
    names = ", ".join(weights.file for weights in model.files)
    if model.format == "pickle":
        raise InvalidInput(
            f"{names} in {model_dir} is a pickle, which could run any program: dreamctl does not open it",
            hint="convert it on a computer that you can lose: `dreamctl models convert --trust`",
        )
    if model.format not in _FORMATS:
        raise InvalidInput(
            f"{names} in {model_dir} is of the form {model.format!r}, which dreamctl cannot lay over a base yet",
            hint="the file itself is whole: other programs may read it",
        )


def near_miss(prompt: str, taught: Sequence[Concept]) -> str | None:
    """A taught word that a word of the prompt was probably meant to be ("skz" for "sks")."""
    known = [word for concept in taught for word in (concept.identifier, concept.name) if word]
    for word in re.findall(r"\w+", prompt):
        found: list[str] = difflib.get_close_matches(word.casefold(), [identifier_key(name) for name in known], 1, 0.66)
        if found:
            return found[0]
    return None


def _stranger(prompt: str, known: Sequence[str]) -> str | None:
    """A word of the prompt that can only be meant as an identifier, and that nobody taught."""
    keys = {identifier_key(word) for word in known}
    words = (word for word in re.findall(r"\w+", prompt.casefold()))
    return next((word for word in words if word in RARE_TOKENS and word not in keys), None)
