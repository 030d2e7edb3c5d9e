"""Tokens of providers: where they are found, where they are kept, and the request that checks them.

Environment > the project's `.env` > keyring (where one is installed and works) > a file that only its owner may read.
A token is never in a repr, a message or a log.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dreamctl import http, paths
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, did_you_mean
from dreamctl.files import locked, os_hint, os_reason, replacing
from dreamctl.profiles import read_dotenv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provider:
    """Somebody who gives out tokens."""

    name: str
    variables: tuple[str, ...]
    base: str
    base_variable: str | None
    check: str
    where: str


# `base_variable` moves the checking request, as the provider's own client does; it is read from the environment alone,
# never from a project's `.env`, since it receives the token.
PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "huggingface", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
            "https://huggingface.co", "HF_ENDPOINT", "/api/whoami-v2", "https://huggingface.co/settings/tokens",
        ),
        Provider(
            "runpod", ("RUNPOD_API_KEY",),
            "https://rest.runpod.io/v1", None, "/endpoints", "https://console.runpod.io/user/settings",
        ),
        Provider(
            "replicate", ("REPLICATE_API_TOKEN",),
            "https://api.replicate.com", "REPLICATE_BASE_URL", "/v1/account", "https://replicate.com/account/api-tokens",
        ),
        Provider(
            "openai", ("OPENAI_API_KEY",),
            "https://api.openai.com/v1", None, "/models", "https://platform.openai.com/api-keys",
        ),
    )
}  # fmt: skip


_CLOUD_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# The environment may say in other ways whose keys are used; Amazon's library would prefer keys to all of them.
_CLOUD_CHOICES = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A token, and where it was found."""

    token: str = field(repr=False)
    origin: str


def provider_named(name: str) -> Provider:
    """Raises InvalidInput with the nearest name."""
    if name not in PROVIDERS:
        raise InvalidInput(f"no provider named {name!r}", field="PROVIDER", hint=did_you_mean(name, PROVIDERS))
    return PROVIDERS[name]


def token(provider: str, project: Path | None = None) -> str | None:
    """The token to use for `provider`, or None. Raises InvalidInput for an unknown provider, CredentialsError where
    the credentials file belongs to somebody else or cannot be read."""
    found = find(provider, project)
    return found.token if found else None


def find(provider: str, project: Path | None = None) -> Found | None:
    """The token to use and where it was found; its very text is hidden by `http.redact` from now on."""
    known = provider_named(provider)
    found = (
        _from_variables(known, project or paths.project_dir()) or _from_keyring(known.name) or _from_file(known.name)
    )
    if found:
        http.remember_secret(found.token)
    return found


def hub_environment(endpoint: str | None, project: Path | None = None) -> dict[str, str]:
    """The variables by which huggingface_hub knows where the hub is (`endpoint`: the setting) and who asks."""
    found = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token("huggingface", project)}
    return {name: value for name, value in found.items() if value}


def cloud_environment(project: Path | None = None) -> dict[str, str]:
    """The keys of object storage that the project's `.env` holds, for the clouds' own libraries, which read variables.

    The environment beats it, the keys as a whole. Nothing else is taken from there: an endpoint would receive what is
    signed, and a Google account's file may send any other file to a stranger. Secrets are hidden by `http.redact` from
    now on.
    """
    found: dict[str, str] = {}
    if not any(os.environ.get(name) for name in (*_CLOUD_KEYS, *_CLOUD_CHOICES)):
        dotenv = read_dotenv((project or paths.project_dir()) / ".env")
        found = {name: value for name in _CLOUD_KEYS if (value := dotenv.get(name))}
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        http.remember_secret(found.get(name) or os.environ.get(name, ""))
    return found


def required(provider: str, project: Path | None = None) -> str:
    """The token to use. Raises CredentialsError that says how to get and store one."""
    found = token(provider, project)
    if found is None:
        known = provider_named(provider)
        raise CredentialsError(
            f"there is no token for {provider}",
            hint=f"get one at {known.where}, then `dreamctl auth login {provider}` or set {known.variables[0]}",
        )
    return found


def checked_form(text: str) -> str:
    """A token as typed or piped, without the spaces around it. Raises InvalidInput, without showing it."""
    value = text.strip()
    http.remember_secret(value)
    if not value:
        raise InvalidInput("the token is empty", field="token")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidInput("the token holds a space or a character that no token has", field="token")
    return value


def check(provider: str, value: str, endpoint: str | None = None) -> str | None:
    """Ask the provider whether it takes the token; the account's name where it says one.

    `endpoint` moves the request (the settings `hub_endpoint`, `caption_endpoint`). Raises CredentialsError when it is
    refused, ProviderError when nobody could be asked.
    """
    known = provider_named(provider)
    moved = os.environ.get(known.base_variable) if known.base_variable else None
    answer = http.request("GET", (endpoint or moved or known.base).rstrip("/") + known.check, token=value, retries=2)
    try:
        said = answer.json()
    except ValueError:
        return None
    named = next((said[key] for key in ("name", "username") if said.get(key)), None) if isinstance(said, dict) else None
    return http.printable(named) if isinstance(named, str) else None


def store(provider: str, value: str) -> str:
    """Keep a token in the keyring, else in the file; returns where. Raises DreamctlError when neither takes it."""
    known = provider_named(provider)
    http.remember_secret(value)
    keyring = _keyring()
    if keyring:
        try:
            keyring.set_password(_service(), known.name, value)
        except Exception as error:  # a locked or broken keyring raises whatever its desktop does
            log.warning("the keyring does not take the token (%s)", type(error).__name__)
        else:
            _change_file(known.name, None)  # or an old one would lie there for ever
            return _keyring_place(keyring)
    _change_file(known.name, value)
    return str(paths.credentials_file())


def forget(provider: str) -> list[str]:
    """Remove a stored token wherever it lies; returns from where. Variables are the user's to unset."""
    known, places = provider_named(provider), []
    keyring = _keyring()
    if keyring and _from_keyring(known.name):
        try:
            keyring.delete_password(_service(), known.name)
        except Exception as error:
            raise DreamctlError(f"the keyring does not let go of the token ({type(error).__name__})") from None
        places.append(_keyring_place(keyring))
    if _change_file(known.name, None):
        places.append(str(paths.credentials_file()))
    return places


def _from_variables(provider: Provider, project: Path) -> Found | None:
    for variables, suffix in ((os.environ, ""), (read_dotenv(project / ".env"), f" in {project / '.env'}")):
        for name in provider.variables:
            if value := variables.get(name, "").strip():
                return Found(value, name + suffix)
    return None


# the keyring


def _service() -> str:
    """One service a user; `DREAMCTL_HOME` is a user of its own."""
    home = os.environ.get("DREAMCTL_HOME")
    return f"dreamctl in {Path(home).absolute()}" if home else "dreamctl"


def _keyring() -> ModuleType | None:
    """The library, where it is installed and has a backend that keeps things."""
    try:
        import keyring

        backend = keyring.get_keyring()
    except Exception:  # not installed, or its configuration names a backend that does not load
        return None
    return keyring if backend.priority >= 1 else None


def _keyring_place(keyring: ModuleType) -> str:
    return f"keyring ({keyring.get_keyring().name})"


def _from_keyring(name: str) -> Found | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        value = keyring.get_password(_service(), name)
    except Exception as error:
        log.warning("the keyring cannot be read (%s)", type(error).__name__)
        return None
    return Found(value, _keyring_place(keyring)) if value else None


# the file


def _from_file(name: str) -> Found | None:
    value = _read_file().get(name)
    return Found(value, str(paths.credentials_file())) if value else None


def _read_file() -> dict[str, str]:
    path = paths.credentials_file()
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CredentialsError(f"{path}: {os_reason(error)}", hint=os_hint(error)) from error
    with open(descriptor, encoding="utf-8") as file:
        _make_private(descriptor, path)
        try:
            tokens = json.load(file)["tokens"]
            if not all(isinstance(value, str) for value in tokens.values()):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CredentialsError(
                f"{path} is not a credentials file", hint="delete it, then `dreamctl auth login PROVIDER` again"
            ) from None  # the decoder's message could quote a token
    return dict(tokens)


def _make_private(descriptor: int, path: Path) -> None:
    """Repair a mode that lets others read, and say so: what they could read they may have read."""
    if os.name == "nt":
        return
    status = os.fstat(descriptor)
    if not stat.S_IMODE(status.st_mode) & 0o077:
        return
    if status.st_uid != os.geteuid():
        raise CredentialsError(f"{path} belongs to another user, who can read your tokens", hint="delete it")
    os.fchmod(descriptor, 0o600)
    log.warning("%s could be read by others; it is private again, but consider new tokens", path)


def _change_file(name: str, value: str | None) -> bool:
    """Set or remove one token, with all others kept; whether anything changed."""
    path = paths.credentials_file()
    if value is None and not path.exists():
        return False
    with locked(paths.locks_dir() / "credentials.lock", "dreamctl auth"):
        tokens = _read_file()
        if tokens.get(name) == value:
            return False
        changed: dict[str, Any] = {**tokens, name: value} if value else {k: v for k, v in tokens.items() if k != name}
        with replacing(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump({"schema": 1, "tokens": changed}, file, indent=2)
    return True
