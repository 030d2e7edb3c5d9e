"""`dreamctl generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamctl.cli.command import Session, command

if TYPE_CHECKING:
    from dreamctl.workflows.generate import Pictures


def register(app: typer.Typer) -> None:
    command(app, "generate")(generate)


def generate(
    session: Session,
    prompt: Annotated[str, typer.Argument(help='Such as "a photo of sks person on a beach".')],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many pictures.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; the next ones count up.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="How strictly the prompt is followed.")] = None,
    size: Annotated[str | None, typer.Option(help="512 or 640x480; the model's own when not given.")] = None,
    negative: Annotated[str, typer.Option(help="What should not be in the picture.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    target: Annotated[str | None, typer.Option(help="pretrained or private; by default what the prompt needs.")] = None,
    model: Annotated[str | None, typer.Option(help="This version, whatever the prompt names: sks@2 or a run.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Base model for a prompt without identifier.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All of them in one picture too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, draw nothing.")] = False,
) -> None:
    """Make pictures from a prompt.

    A taught identifier in the prompt chooses the model; its category is added where it is missing.
    """
    from dreamctl.cli.parse import choice
    from dreamctl.cli.parse import size as parse_size
    from dreamctl.domain.run import Target
    from dreamctl.workflows.generate import Order, generate

    order = Order(
        prompt=prompt,
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=parse_size("--size", size) if size else None,
        negative=negative,
        out=out,
        target=choice("--target", target, Target) if target else None,
        base_model=base_model,
        version=model,
        grid=grid,
        dry_run=dry_run,
    )
    made = generate(session.context(), order)
    files = [str(path) for path in made.files]
    value = {"pictures": files, "grid": str(made.grid) if made.grid else None, "plan": made.plan.data()}
    session.output.emit(value, _text(made), [*files, *([str(made.grid)] if made.grid else [])])


def _text(made: Pictures) -> str:
    plan = made.plan
    model = f"{plan.version} on {plan.base.source}" if plan.version else f"{plan.base.source} (pretrained)"
    seeds = f"seed {plan.seeds[0]}" if len(plan.seeds) == 1 else f"seeds {plan.seeds[0]} to {plan.seeds[-1]}"
    how = f"{plan.steps} steps, guidance {plan.guidance:g}, {plan.width}×{plan.height}, {seeds}"
    head = f'"{plan.prompt}" by {model}, {how}'
    files = [*made.files, *([made.grid] if made.grid else [])]
    return "\n".join([head, *(f"  {_short(path)}" for path in files)])


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
