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
    called: Annotated[str | None, typer.Option(help="A human name that prompts may use too, such as Luna.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="KEY", help="Name of the run: said again, it is joined, not paid twice.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Which model learns; private where nothing else is set.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Shipped recipe or TOML file; see `dreamctl recipes`.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Override a knob: training.steps=400.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="builtin, hub id or diffusers folder.")] = None,
    backend: Annotated[str | None, typer.Option(help="Where to train: local, runpod, replicate.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with this run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train although it was done before.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return its id.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="At a provider: agree to the costs.")] = False,
    max_cost: Annotated[float | None, typer.Option(metavar="DOLLARS", help="Agree to costs up to this.")] = None,
    max_hours: Annotated[float | None, typer.Option(metavar="HOURS", help="The most that it may run there.")] = None,
    data_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the packed dataset lies already; else it is uploaded.")
    ] = None,
    input_: Annotated[
        list[str] | None, typer.Option("--input", metavar="KEY=VALUE", help="An input of the provider's own trainer.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Told by the provider when it ends.")] = None,
    attach: Annotated[
        str | None, typer.Option(metavar="PROVIDER:ID", help="Adopt a job that runs there: runpod:abc-123.")
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Send again what may have arrived; it may be paid twice.")
    ] = False,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C ends the run at the provider too.")
    ] = False,
    runpod_endpoint: Annotated[str | None, typer.Option(metavar="ID", help="RunPod's endpoint.")] = None,
    replicate_trainer: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Replicate's trainer.")] = None,
    replicate_destination: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Replicate's destination.")
    ] = None,
    storage: Annotated[str | None, typer.Option(metavar="URL", help="The bucket: s3://bucket/folder.")] = None,
) -> None:
    """Teach a subject or a style from a dataset.

    Without an argument it takes the project's prepared dataset. Run again, it shows what is done and goes on with what
    is not.
    """
    from dreamctl.cli.parse import choice
    from dreamctl.domain.concept import Kind
    from dreamctl.workflows.lesson import Wish
    from dreamctl.workflows.naming import provider_of
    from dreamctl.workflows.train import train

    wish = Wish(
        dataset=dataset,
        identifier=identifier,
        called=called,
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
        attach=attach,
        data_url=data_url,
        inputs=input_ or [],
        yes=yes,
        resubmit=resubmit,
        cancel_on_interrupt=cancel_on_interrupt,
    )
    context = session.context(
        backend=provider_of(attach) if attach else backend,
        target=target,
        max_cost=max_cost,
        max_hours=max_hours,
        webhook=webhook,
        runpod_endpoint=runpod_endpoint,
        replicate_trainer=replicate_trainer,
        replicate_destination=replicate_destination,
        storage=storage,
    )
    taught = train(context, wish)
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
