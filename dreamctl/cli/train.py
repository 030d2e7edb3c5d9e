"""`dreamctl train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamctl.cli.command import Session, command

if TYPE_CHECKING:
    from dreamctl.workflows.train import Taught

Kinds = Annotated[str | None, typer.Option("--kind", help="subject (a thing in the picture) or style.")]


def register(app: typer.Typer) -> None:
    command(app, "train")(train)


def train(
    session: Session,
    dataset: Annotated[Path | None, typer.Argument(help="Prepared dataset, or plain pictures.")] = None,
    identifier: Annotated[str | None, typer.Option(help="Rare token; chosen when not given.")] = None,
    category: Annotated[str | None, typer.Option(help="What it is: person, dog, mug …")] = None,
    kind: Kinds = None,
    name: Annotated[str | None, typer.Option(help="A human name that prompts may use too.")] = None,
    target: Annotated[str | None, typer.Option(help="Which model learns; private where nothing else is set.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Shipped recipe or TOML file; see `dreamctl recipes`.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Override a knob: training.steps=400.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="builtin, hub id or diffusers folder.")] = None,
    backend: Annotated[str | None, typer.Option(help="Where to train: local.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with this run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train although it was done before.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return its id.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
) -> None:
    """Teach a subject or a style from a dataset.

    Without an argument it takes the project's prepared dataset. Run again, it shows what is done and goes on with what
    is not.
    """
    from dreamctl.cli.parse import choice
    from dreamctl.domain.concept import Kind
    from dreamctl.workflows.lesson import Wish
    from dreamctl.workflows.train import train

    wish = Wish(
        dataset=dataset,
        identifier=identifier,
        name=name,
        category=category,
        kind=choice("--kind", kind, Kind) if kind else None,
        recipe=recipe,
        base_model=base_model,
        overrides=set_ or [],
        resume=resume,
        again=again,
        detach=detach,
        dry_run=dry_run,
    )
    taught = train(session.context(backend=backend, target=target), wish)
    session.output.emit(_data(taught), _text(taught), [taught.run.id] if taught.run else [])


def _data(taught: Taught) -> dict[str, object]:
    return {
        "run": taught.run.id if taught.run else None,
        "state": taught.state.value,
        "before": taught.before,
        **taught.concept.model_dump(mode="json"),
        "versions": [version.name for version in taught.versions],
        "digest": taught.versions[0].digest if taught.versions else None,
        "model": str(taught.run.model) if taught.run and taught.versions else None,
        "pictures": taught.pictures,
        "recipe": taught.recipe.plain(),
    }


def _text(taught: Taught) -> str:
    concept, recipe = taught.concept, taught.recipe
    lesson = f"{concept.identifier} ({concept.category}, {concept.kind}) from {taught.pictures} pictures"
    if taught.run is None:
        method = f"{recipe.method.name}, {recipe.training.steps} steps at {recipe.training.resolution} px"
        return f"would teach {lesson}\n  base {recipe.base.source}, {method}; nothing was started"
    if not taught.versions:
        return f"run {taught.run.id} teaches {lesson}\n  follow it: dreamctl status {taught.run.id} --follow"
    done = "was taught before" if taught.before else "taught"
    names = ", ".join(version.name for version in taught.versions)
    prompt = f"a photo of {concept.identifier} {concept.category}"
    choice = "" if taught.newest else f" --model {taught.run.id}"
    return f'{done}: {lesson}\n  model {names}, run {taught.run.id}\n  next: dreamctl generate "{prompt}"{choice}'
