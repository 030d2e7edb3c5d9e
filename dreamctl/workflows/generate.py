"""Make pictures: read the prompt, choose the model version that knows what it names, draw, save."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamctl import recipes
from dreamctl.context import Context
from dreamctl.domain.concept import Concept
from dreamctl.domain.prompts import expand
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.run import Target
from dreamctl.domain.versions import Version, find_version
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.families.sources import pinned, resolve_base
from dreamctl.generation.plan import Meaning, Plan, check_form, near_miss, read_prompt
from dreamctl.runfolder import RunFolder
from dreamctl.workflows.harvest import harvest
from dreamctl.workflows.lesson import absolute_source, reach_hub
from dreamctl.workflows.notice import tell_notice

_MAX_SEED = 2**32


@dataclass(frozen=True)
class Order:
    """What the line says; None where it says nothing."""

    prompt: str
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    negative: str = ""
    out: Path | None = None
    target: Target | None = None
    base_model: str | None = None
    version: str | None = None
    grid: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Pictures:
    """What was made: the files in the order of the plan's seeds, and the grid, if asked for."""

    plan: Plan
    files: list[Path]
    grid: Path | None = None


def generate(context: Context, order: Order) -> Pictures:
    """Make the pictures that the order asks for. Raises NotFound for an identifier that nobody taught."""
    harvest(context)
    plan = make_plan(context, order)
    if order.dry_run:
        return Pictures(plan, [])
    tell_notice(context.reporter, plan.base.source)
    return _draw(context, plan, order)


def make_plan(context: Context, order: Order) -> Plan:
    """Decide everything; nothing heavy is loaded."""
    taught = context.registry.concepts()
    target = _target(context, order)
    if order.version:
        meaning = Meaning((), expand(order.prompt, taught))
        version: Version | None = _whole(context, [find_version(context.registry.versions(), order.version)])
    else:
        meaning = read_prompt(order.prompt, taught, target)
        version = _version(context, meaning, target, order.base_model) if meaning.concepts else None
    if version:
        run = RunFolder(context.runs / version.run_id)
        recipe, model = run.recipe(), run.model
        if described := run.model_file():
            check_form(described, model)
    else:
        recipe, model = _base_recipe(context, order.base_model), None
        if target is not Target.pretrained:
            _tell_nothing_named(context, order.prompt, taught)
    if order.count < 1:
        raise InvalidInput(f"-n {order.count}: at least one picture", field="-n")
    first = secrets.randbelow(_MAX_SEED) if order.seed is None else order.seed
    if not 0 <= first < _MAX_SEED:
        raise InvalidInput(f"--seed {first} is out of range", field="--seed", hint=f"0 to {_MAX_SEED - 1}")
    width, height = order.size or (recipe.training.resolution, recipe.training.resolution)
    return Plan(
        prompt=meaning.prompt,
        negative=order.negative,
        base=recipe.base,
        model=model,
        version=version.name if version else None,
        concepts=meaning.concepts,
        target=version.target if version else Target.pretrained,
        steps=order.steps or recipe.sampling.steps,
        guidance=recipe.sampling.guidance if order.guidance is None else order.guidance,
        width=width,
        height=height,
        seeds=tuple((first + number) % _MAX_SEED for number in range(order.count)),
    )


def _target(context: Context, order: Order) -> Target | None:
    """The target that line or settings name; None leaves the choice to the prompt."""
    settings = context.settings
    return order.target or (None if settings.origin("target") == "default" else settings.target)


def _version(context: Context, meaning: Meaning, target: Target | None, base_model: str | None) -> Version:
    """The newest version of the named concept for the target, on the base that the line names."""
    concept = meaning.concepts[0]
    wanted = [item for item in context.registry.versions(concept.identifier) if target in (None, item.target)]
    if base_model:
        reach_hub(context, base_model)
        digest = resolve_base(Base(source=absolute_source(base_model))).digest
        wanted = [item for item in wanted if item.base_digest == digest]
    if not wanted:
        where = f" on {base_model}" if base_model else f" for target {target.value}" if target else ""
        raise NotFound(
            f"{concept.identifier!r} has no model version yet{where}",
            field="PROMPT",
            hint="`dreamctl status` shows its runs; `dreamctl train` teaches it",
        )
    return _whole(context, wanted)


def _whole(context: Context, versions: Sequence[Version]) -> Version:
    """The newest of the versions whose weights are here."""
    present = [item for item in versions if (context.runs / item.run_id / "model" / "model.json").is_file()]
    if not present:
        raise NotFound(
            f"the weights of {versions[-1].name} are gone from {context.runs / versions[-1].run_id}",
            hint="teach it again: dreamctl train --again",
        )
    return present[-1]


def _base_recipe(context: Context, base_model: str | None) -> Recipe:
    """The recipe whose `sampling` and resolution suit the pretrained model."""
    source = base_model or context.settings.base_model or "builtin"
    reach_hub(context, source)
    base = resolve_base(Base(source=absolute_source(source)))
    recipe = recipes.resolve(recipes.default_for(source, base.family), [{"base": {"source": source}}])
    return recipe.model_copy(update={"base": pinned(base)})


def _tell_nothing_named(context: Context, prompt: str, taught: Sequence[Concept]) -> None:
    near = near_miss(prompt, taught)
    hint = f"; did you mean {near!r}?" if near else ""
    if taught or near:
        context.reporter.note(f"the prompt names nothing that was taught, so the base model draws{hint}")


def _draw(context: Context, plan: Plan, order: Order) -> Pictures:
    from dreamctl.generation.pictures import grid, save_picture
    from dreamctl.generation.pipeline import open_pipeline

    reach_hub(context, plan.base.source)
    folder = (order.out or context.project / context.settings.pictures).absolute()
    pipe = open_pipeline(plan.base, plan.model, device=context.settings.device)
    when = datetime.datetime.now()
    total = plan.steps * len(plan.seeds)
    parameters = {key: value for key, value in plan.data().items() if key not in ("prompt", "seeds")}
    parameters["model"] = plan.version
    images, files = [], []
    made = pipe.make(
        plan.prompt,
        plan.negative,
        steps=plan.steps,
        guidance=plan.guidance,
        width=plan.width,
        height=plan.height,
        seeds=plan.seeds,
        on_progress=lambda done, _: context.reporter.progress("drawing", done, total),
    )
    for seed, image in zip(plan.seeds, made, strict=True):
        files.append(save_picture(image, folder, plan.prompt, when, seed, parameters))
        if order.grid:
            images.append(image)
    sheet = None
    if images:
        sheet = save_picture(grid(images), folder, plan.prompt, when, plan.seeds[0], parameters, prefix="grid-")
    return Pictures(plan, files, sheet)
