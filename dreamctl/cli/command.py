"""What every command has in common: the flags that stand on each of them, and the session that they open."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.output import Mode, Output, reader_left
from dreamctl.errors import InvalidInput, did_you_mean, signalled_error
from dreamctl.http import RedactingFormatter

if TYPE_CHECKING:
    from dreamctl.context import Context

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Session:
    """One call of one command: where its output goes, and the profile that the line named."""

    output: Output
    profile: str | None = None

    def context(self, **flags: Any) -> Context:
        """Settings, registry and adapters, wired. `flags` are settings given on the line; None means not given."""
        from dreamctl.context import Context

        given = {key: value for key, value in flags.items() if value is not None}
        return Context.open(profile=self.profile, flags=given, reporter=self.output)


def open_session(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids or paths only, one a line.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")] = False,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "warning",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    profile: Annotated[str | None, typer.Option("--profile", help="Profile of settings to use.")] = None,
) -> Session:
    """The session that the common flags ask for. `debug` is read by the error boundary."""
    if json and quiet:
        raise InvalidInput("--json and --quiet exclude each other", field="--json", hint="leave one of them out")
    if log_level.lower() not in _LEVELS:
        raise InvalidInput(f"--log-level {log_level!r}: {did_you_mean(log_level, _LEVELS)}", field="--log-level")
    level = "debug" if debug else "info" if verbose and log_level == "warning" else log_level
    logging.basicConfig(level=level.upper(), force=True)
    for handler in logging.root.handlers:
        handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    mode: Mode = "json" if json else "quiet" if quiet else "text"
    return Session(Output(mode), profile)


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `function(session, …)` under `name`, with the common flags behind its own."""
    common = inspect.signature(open_session, eval_str=True).parameters

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(**values: Any) -> Any:
            session = open_session(**{key: values.pop(key) for key in common})
            try:
                return function(session, **values)
            except BrokenPipeError:
                return reader_left()
            except KeyboardInterrupt as raised:  # Typer would make one silent exit code of both signals
                raise signalled_error(raised, "stopped") from raised

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *common.values())]
        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, **options)(run)
        return function

    return decorate
