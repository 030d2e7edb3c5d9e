"""What may be asked of a captioner."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from dreamctl.errors import InvalidInput

_SETTINGS = ("device", "endpoint", "token")


@dataclass(frozen=True)
class CaptionOptions:
    """What line and settings say; None is the captioner's own choice. `dreamctl caption --help` says what each means.

    `device`, `endpoint` and `token` come from the settings: a captioner without a use for them ignores them. All
    others come from the line alone, where one that the captioner does not take is an error.
    """

    model: str | None = None
    revision: str | None = None
    task: str | None = None
    prompt: str | None = None
    template: str | None = None
    max_tokens: int | None = None
    batch_size: int | None = None
    timeout: float | None = None
    threshold: float | None = None
    character_threshold: float | None = None
    exclude: tuple[str, ...] = ()
    device: str | None = None
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)

    def given(self) -> dict[str, Any]:
        """What the line says, by name."""
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in _SETTINGS}
        return {name: value for name, value in values.items() if value not in (None, ())}

    def check(self, captioner: str, takes: Collection[str]) -> None:
        """Raises InvalidInput where the line says what `captioner` does not take; it names what it takes."""
        wrong = [_flag(name) for name in self.given() if name not in takes]
        if wrong:
            right = ", ".join(_flag(name) for name in sorted(takes))
            raise InvalidInput(
                f"captioner {captioner!r} does not take {', '.join(wrong)}",
                field=wrong[0],
                hint=f"it takes {right}" if right else "it takes no options",
            )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
