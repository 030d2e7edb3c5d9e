"""What a training at a provider may cost: told before anything is sent, and agreed to, or nothing happens."""

from __future__ import annotations

from dreamctl.backends.base import RemoteBackend, Terms, Wishes
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.quantities import spoken
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import ConsentRequired, InvalidInput

_ENTRY_BYTES = 300  # what a file's name costs in an archive, twice


def agree(context: Context, backend: RemoteBackend, recipe: Recipe, data: DatasetFolder, wishes: Wishes) -> Terms:
    """Tell what will happen and get consent for it. Raises ConsentRequired where there is none.

    Consent is `--yes`, a `max_cost` that the most it can cost stays below, or a person's answer.
    """
    terms = backend.terms(recipe, wishes, archive_bytes(data))
    for note in terms.notes:
        context.reporter.note(note)
    context.reporter.note(outlook(terms))
    limit = context.settings.max_cost
    if wishes.yes:
        return terms
    if limit is not None:
        _check_limit(terms, limit)
        return terms
    answer = context.reporter.confirm(f"Train at {terms.who}?")
    if answer is not True:
        raise ConsentRequired(
            f"a training at {terms.who} costs money, and nobody agreed to it",
            field="--yes",
            hint="say --yes, or set the most that you want to spend: --max-cost 5, or max_cost in your profile",
        )
    return terms


def archive_bytes(data: DatasetFolder) -> int:
    """About how large the packed data is; a little more rather than less."""
    files = [data.path / name for name in data.files()]
    files += [data.caption_file(picture.file) for picture in data.manifest().pictures]
    return sum(file.stat().st_size + _ENTRY_BYTES for file in files if file.exists())


def outlook(terms: Terms) -> str:
    """One sentence of what it takes: a guess, the most, and who sees to that."""
    if terms.hours is None:
        guess = "how long it takes is not known"
    else:
        guess = f"about {_hours(terms.hours)}" + (f", ${terms.cost:.2f}" if terms.cost is not None else "")
        guess += " (a guess, not a measurement)"
    if terms.seconds is None:
        return f"{terms.who}: {guess}; no limit is set"
    price = terms.price_per_hour
    most = f"at most {_hours(terms.seconds / 3600)}" + (
        f", ${terms.seconds / 3600 * price:.2f}" if price is not None else ""
    )
    keeper = {
        "provider": "the provider itself ends it then",
        "follower": "dreamctl ends it then, but only while it follows it",
        None: "nobody sees to that",
    }[terms.limited_by]
    return f"{terms.who}: {guess}; {most}: {keeper}"


def _check_limit(terms: Terms, limit: float) -> None:
    """Raises where the training may cost more than was agreed to beforehand."""
    if terms.price_per_hour is None:
        raise InvalidInput(
            f"max_cost = {limit:g} cannot be kept: nobody said what an hour costs",
            field="price_per_hour",
            hint="dreamctl config set price_per_hour DOLLARS (see the provider's price list), or say --yes",
        )
    if terms.cost is not None and terms.cost > limit:
        raise ConsentRequired(
            f"it would cost about ${terms.cost:.2f}, and max_cost is ${limit:g}",
            field="max_cost",
            hint="raise --max-cost, say --yes, or train fewer steps",
        )
    if terms.seconds is None or terms.seconds / 3600 * terms.price_per_hour > limit + 0.005:
        raise ConsentRequired(
            f"it could cost more than max_cost = {limit:g}: it has no time limit that keeps it below",
            field="max_cost",
            hint="set --max-hours, or say --yes",
        )


def _hours(hours: float) -> str:
    return spoken(max(60, round(hours * 60) * 60)) if hours < 48 else f"{hours / 24:.1f} days"
