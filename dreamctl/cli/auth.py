"""`dreamctl auth`: the group of commands about tokens."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="huggingface, runpod or replicate.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Store, check and forget tokens of providers.")
    app.add_typer(group, name="auth")
    for name, function in (("login", login), ("status", status), ("logout", logout)):
        command(group, name)(function)


def login(
    session: Session,
    provider: Provider,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read the token from standard input.")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Ask the provider whether it takes it.")] = True,
) -> None:
    """Store a token: asked for unseen on a terminal, or read from a pipe with --token-stdin."""
    from dreamctl import paths
    from dreamctl.workflows.auth import login, where_to_get

    page = where_to_get(provider)  # an unknown provider is said before a token is asked for
    token = sys.stdin.readline() if token_stdin else _asked(session, provider, page)
    done = login(provider, token, paths.project_dir(), session.profile, check)
    if not done.checked:
        session.output.note(f"not checked: nobody asked {done.provider} whether the token works")
    if done.hidden_by:
        session.output.warn(f"the token of {done.hidden_by} stands above the stored one, and is the one used here")
    whose = f" of {done.account}" if done.account else ""
    value = {"provider": done.provider, "place": done.place, "checked": done.checked, "account": done.account}
    text = f"stored the {done.provider} token{whose} in {done.place}"
    session.output.emit({**value, "hidden_by": done.hidden_by}, text, [done.provider])


def status(session: Session) -> None:
    """Where each provider's token comes from; the token itself is never shown."""
    from dreamctl import paths
    from dreamctl.workflows.auth import status

    rows = status(paths.project_dir())
    value = {
        "providers": {
            row.provider: {"origin": row.origin, "variable": row.variable, "get_one_at": row.get_one_at} for row in rows
        }
    }
    cells = [(row.provider, row.origin or f"none; get one at {row.get_one_at}") for row in rows]
    session.output.emit(value, Table(("provider", "token from"), cells), [row.provider for row in rows if row.origin])


def logout(session: Session, provider: Provider) -> None:
    """Forget a provider's stored token."""
    from dreamctl import paths
    from dreamctl.workflows.auth import logout

    done = logout(provider, paths.project_dir())
    if done.still_from:
        session.output.warn(f"a token still comes from {done.still_from}; only you can unset it there")
    places = " and ".join(done.removed_from)
    text = f"removed the {provider} token from {places}" if places else f"no {provider} token was stored"
    value = {"provider": provider, "removed_from": list(done.removed_from), "still_from": done.still_from}
    session.output.emit(value, text, list(done.removed_from))


def _asked(session: Session, provider: str, page: str) -> str:
    """The token typed at a terminal, unseen."""
    from getpass import getpass

    from dreamctl.errors import Interrupted, InvalidInput

    if not session.output.interactive:
        raise InvalidInput(
            "there is no terminal to ask for the token on",
            field="--token-stdin",
            hint=f"pipe it: `dreamctl auth login {provider} --token-stdin < FILE`",
        )
    session.output.note(f"get a token at {page}")
    try:
        return getpass(f"{provider} token (not shown): ", stream=session.output.err)
    except EOFError:
        raise Interrupted("no token was typed") from None
