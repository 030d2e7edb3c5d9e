"""Sample pictures of a training, with seeds that never change, so that one can see it learn."""

from __future__ import annotations

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.files import replacing
from dreamctl.generation.pipeline import Pipe
from dreamctl.runfolder import RunFolder
from dreamctl.training.draws import derived
from dreamctl.training.progress import Reporter
from dreamctl.training.stop import Stop


def draw_samples(
    run: RunFolder, recipe: Recipe, concept: Concept, pipe: Pipe, step: int, reporter: Reporter, stop: Stop
) -> None:
    """One picture for each of the recipe's sample prompts, as `samples/step-NNNNNN-K.png`. Raises Stopped."""
    for number, template in enumerate(recipe.samples.prompts):
        file = run.samples / f"step-{step:06d}-{number}.png"
        if file.exists():
            continue  # made before this training was interrupted
        stop.check()
        prompt = " ".join(template.format(identifier=concept.identifier, category=concept.category, caption="").split())
        side = recipe.training.resolution
        pictures = pipe.make(
            prompt,
            steps=recipe.sampling.steps,
            guidance=recipe.sampling.guidance,
            width=side,
            height=side,
            seeds=[derived(recipe.training.seed, "sample picture", number)],
        )
        with replacing(file) as temporary:
            next(pictures).save(temporary, format="PNG")
        reporter.sample(step, file)
