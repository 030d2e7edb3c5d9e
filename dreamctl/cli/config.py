"""`dreamctl config`: the group of commands about settings and about files that say how to train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.dataset import dataset
from dreamctl.cli.output import Table


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Show, change and check settings; describe datasets.")
    app.add_typer(group, name="config")
    for name, function in (
        ("init", init),
        ("show", show),
        ("set", set_),
        ("profiles", profiles),
        ("path", path),
        ("explain", explain),
        ("validate", validate),
        ("dataset", dataset),
    ):
        command(group, name)(function)


def init(session: Session) -> None:
    """Write a commented dreamctl.toml into the current folder."""
    from dreamctl.workflows.config import init_project

    file = init_project(Path.cwd())
    session.output.emit({"file": str(file)}, f"wrote {file}", [str(file)])


def show(session: Session) -> None:
    """Every setting, its value, and where that value comes from."""
    from dreamctl import paths
    from dreamctl.workflows.config import show
    from dreamctl.workflows.explain import shown

    rows = show(paths.project_dir(), session.profile)
    value = {"settings": {row.key: {"value": row.value, "origin": row.origin} for row in rows}}
    table = Table(("setting", "value", "from"), [(row.key, shown(row.value), row.origin) for row in rows])
    session.output.emit(value, table, [f"{row.key}={'' if row.value is None else row.value}" for row in rows])


def set_(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A setting; `config explain` lists them.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What it shall be.")],
    project: Annotated[bool, typer.Option("--project", help="Into this project's dreamctl.toml.")] = False,
) -> None:
    """Write a setting into your profile (--profile NAME makes a new one), or with --project into dreamctl.toml."""
    from dreamctl import paths
    from dreamctl.errors import InvalidInput
    from dreamctl.workflows.config import set_value
    from dreamctl.workflows.explain import shown

    if project and session.profile:
        raise InvalidInput(
            "--project and --profile exclude each other", field="--project", hint="leave one of them out"
        )
    written = set_value(key, value, paths.project_dir(), session.profile, in_project=project)
    if written.hidden_by:
        session.output.warn(f"{written.hidden_by} stands above it here, and still decides {key}")
    facts = {"key": key, "value": written.value, "place": written.place, "file": str(written.file)}
    text = f"{key} = {shown(written.value)} ({written.place})"
    session.output.emit({**facts, "hidden_by": written.hidden_by}, text, [str(written.file)])


def profiles(session: Session) -> None:
    """The profiles that may be named, and which one is active."""
    from dreamctl import paths
    from dreamctl.workflows.config import list_profiles

    rows = list_profiles(paths.project_dir(), session.profile)
    value = {
        "profiles": [
            {"name": row.name, "file": str(row.file), "values": row.values, "active_by": row.active_by} for row in rows
        ]
    }
    cells = [(row.name, f"yes ({row.active_by})" if row.active_by else "", row.file) for row in rows]
    session.output.emit(value, Table(("profile", "active", "file"), cells), [row.name for row in rows])


def path(session: Session) -> None:
    """Where settings, tokens, the registry, runs and caches lie."""
    from dreamctl import paths
    from dreamctl.workflows.config import locations

    found = locations(paths.project_dir())
    cells = [
        (name.replace("_", " "), place, "" if place.exists() else "not there yet") for name, place in found.items()
    ]
    value = {name: str(place) for name, place in found.items()}
    session.output.emit(value, Table(("what", "where", ""), cells), list(value.values()))


def explain(
    session: Session,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Such as max_cost or training.steps.")] = None,
) -> None:
    """What a setting or a recipe's knob means and may be; without KEY all of them."""
    from dreamctl.workflows.explain import explain, shown

    found = explain(key)
    text: str | Table = "\n\n".join(knob.text() for knob in found)
    if key is None:
        rows = [(knob.key, shown(knob.default), knob.allowed or knob.type, knob.description) for knob in found]
        text = Table(("key", "default", "allowed", "meaning"), rows)
    session.output.emit({"keys": [knob.data() for knob in found]}, text, [knob.key for knob in found])


def validate(
    session: Session,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Recipes, settings files, trainers' files.")
    ] = None,
) -> int:
    """Check recipes, settings files and descriptions that other trainers read, every problem at once.

    Without FILE the settings files in use.
    """
    from dreamctl import paths
    from dreamctl.errors import InvalidInput
    from dreamctl.workflows.validate import validate

    checked = validate(files or [], paths.project_dir())
    lines = [problem for one in checked for problem in one.problems]
    lines += [f"{one.file}: a valid {one.kind}" for one in checked if not one.problems]
    value = {
        "valid": not any(one.problems for one in checked),
        "files": [{"file": str(one.file), "kind": one.kind, "problems": list(one.problems)} for one in checked],
    }
    wrong = [str(one.file) for one in checked if one.problems]
    session.output.emit(value, "\n".join(lines) or "there is no settings file here to check", wrong)
    return InvalidInput.exit_code if wrong else 0
