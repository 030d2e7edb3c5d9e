"""Store, show and forget tokens. What comes out of here holds none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamctl import credentials
from dreamctl.settings import load_settings


@dataclass(frozen=True)
class LoggedIn:
    """A stored token: where it went, whose it is (where the provider says so), and what still stands above it."""

    provider: str
    place: str
    checked: bool
    account: str | None
    hidden_by: str | None


@dataclass(frozen=True)
class TokenStatus:
    """Where a provider's token comes from; `origin` is None where there is none."""

    provider: str
    origin: str | None
    variable: str
    get_one_at: str


@dataclass(frozen=True)
class LoggedOut:
    """From where a token was removed, and where one is still found."""

    provider: str
    removed_from: tuple[str, ...]
    still_from: str | None


def where_to_get(provider: str) -> str:
    """The page that gives out a provider's tokens. Raises InvalidInput for an unknown provider."""
    return credentials.provider_named(provider).where


def login(provider: str, token: str, project: Path, profile: str | None, check: bool = True) -> LoggedIn:
    """Check a token with its provider, then store it.

    Raises InvalidInput for text that is no token, CredentialsError when the provider refuses it, ProviderError when it
    cannot be asked; nothing is stored then.
    """
    credentials.provider_named(provider)
    value = credentials.checked_form(token)
    account = credentials.check(provider, value, _endpoint(provider, project, profile)) if check else None
    place = credentials.store(provider, value)
    found = credentials.find(provider, project)
    hidden_by = found.origin if found and found.origin != place else None
    return LoggedIn(provider, place, check, account, hidden_by)


def status(project: Path) -> list[TokenStatus]:
    """Every provider, and where its token would come from now."""
    found = [(provider, credentials.find(provider.name, project)) for provider in credentials.PROVIDERS.values()]
    return [
        TokenStatus(provider.name, token.origin if token else None, provider.variables[0], provider.where)
        for provider, token in found
    ]


def logout(provider: str, project: Path) -> LoggedOut:
    """Forget a stored token. Raises InvalidInput for an unknown provider."""
    removed = credentials.forget(provider)
    left = credentials.find(provider, project)
    return LoggedOut(provider, tuple(removed), left.origin if left else None)


def _endpoint(provider: str, project: Path, profile: str | None) -> str | None:
    settings = load_settings(project, profile)
    return {"huggingface": settings.hub_endpoint, "openai": settings.caption_endpoint}.get(provider)
