"""What `dreamctl doctor --backend replicate` looks at: account, trainer, destination, hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from dreamctl.backends.base import Look
from dreamctl.backends.replicate_api import Api
from dreamctl.backends.replicate_trainers import Trainer
from dreamctl.errors import DreamctlError, did_you_mean
from dreamctl.settings import Settings

_Seen = tuple[Literal["ok", "warn", "missing"], str, str | None]
_See = Callable[[Settings, Callable[[], Api], Callable[[], Trainer]], _Seen]


def looks(settings: Settings, api: Callable[[], Api], trainer: Callable[[], Trainer]) -> list[Look]:
    """Everything that can be found out without paying; what is broken is a finding, never an error."""
    found: list[Look] = []
    for name, look in _LOOKS.items():
        if name != "replicate trainer" and settings.replicate_dialect == "dreambooth":
            continue  # that API knows none of these
        try:
            found.append((name, *look(settings, api, trainer)))
        except DreamctlError as error:
            found.append((name, "missing", error.message, error.hint))
    return found


def _account(settings: Settings, api: Callable[[], Api], trainer: Callable[[], Trainer]) -> _Seen:
    return "ok", api().account(), None


def _trainer(settings: Settings, api: Callable[[], Api], trainer: Callable[[], Trainer]) -> _Seen:
    seen = trainer()
    kind = "dreamctl's own" if seen.carries else f"{len(seen.schema.properties)} inputs"
    return "ok", f"{seen.name}:{seen.version[:12]} ({kind})", None


def _destination(settings: Settings, api: Callable[[], Api], trainer: Callable[[], Trainer]) -> _Seen:
    name = settings.replicate_destination
    if name is None:
        return "ok", "a model for each identifier, made when it is first taught", None
    if api().model(name) is None:
        return "warn", f"{name} is not there", "the first training asks, and makes it"
    return "ok", name, None


def _hardware(settings: Settings, api: Callable[[], Api], trainer: Callable[[], Trainer]) -> _Seen:
    sku, known = settings.replicate_hardware, api().hardware()
    if sku in known:
        return "ok", f"{sku} ({known[sku]})", None
    advice = f"dreamctl config set replicate_hardware SKU ({did_you_mean(sku, known)})"
    return "warn", f"{sku} is none of Replicate's", advice


_LOOKS: Mapping[str, _See] = {
    "replicate account": _account,
    "replicate trainer": _trainer,
    "replicate destination": _destination,
    "replicate hardware": _hardware,
}
