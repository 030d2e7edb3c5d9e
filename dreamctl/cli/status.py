"""`dreamctl status`, `logs` and `cancel`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table, clock

if TYPE_CHECKING:
    from dreamctl.context import Context
    from dreamctl.workflows.runs import RunStatus

Run = Annotated[str, typer.Argument(metavar="RUN", help="Id, unique prefix, or `last`.")]


def register(app: typer.Typer) -> None:
    command(app, "status")(status)
    command(app, "logs")(logs)
    command(app, "cancel")(cancel)


def status(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id, unique prefix, or `last`.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit 8 while it runs, 6 where it failed.")
    ] = False,
) -> None:
    """All runs, or one with its progress and loss."""
    from dreamctl.workflows.runs import all_status, exit_for, one_status

    context = session.context()
    if follow or (run is None and exit_status):
        run = run or "last"
    if run is None:
        rows = all_status(context)
        session.output.emit({"runs": [row.data() for row in rows]}, _table(rows), [row.id for row in rows])
        return
    one = _followed(session, context, run) if follow else one_status(context, run)
    if not follow:
        session.output.emit(one.data(), _one(one), [one.id])
    if exit_status:
        exit_for(one)


def logs(
    session: Session,
    run: Run = "last",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """The trainer's log."""
    from dreamctl.workflows.runs import find_run

    found = find_run(session.context(), run)
    shown = found.log_tail(lines)
    if not follow:
        session.output.emit({"run": found.id, "lines": shown}, "\n".join(shown) or "the log is empty", shown)
        return
    for line in shown:
        session.output.stream({"run": found.id, "line": line}, line)
    with open(found.log_file, errors="replace") as log:
        log.seek(0, 2)
        alive = True
        while alive:
            alive = found.alive()
            for line in log:
                session.output.stream({"run": found.id, "line": line.rstrip()}, line.rstrip())
            time.sleep(0.3 if alive else 0)


def cancel(session: Session, run: Run) -> None:
    """Stop a run for good."""
    from dreamctl.workflows.runs import cancel

    stopped = cancel(session.context(), run)
    text = (
        f"cancelling run {stopped.id}: its trainer ends at the next step"
        if stopped.alive()
        else f"cancelled run {stopped.id}"
    )
    session.output.emit({"run": stopped.id, "state": stopped.state().value}, text, [stopped.id])


def _followed(session: Session, context: Context, run: str) -> RunStatus:
    """Tell every change of one run until it has settled."""
    from dreamctl.workflows.follow import POLL_SECONDS
    from dreamctl.workflows.runs import find_run, one_status

    folder = find_run(context, run)
    shown: dict[str, Any] = {}
    while True:
        alive = folder.alive()
        one = one_status(context, folder.id)
        changed = {key: one.data()[key] for key in ("state", "step", "message")}
        if session.output.mode == "json" and changed != shown:
            session.output.stream(one.data(), "")
        elif one.steps:
            session.output.progress(f"{one.id} {one.state}", one.step, one.steps)
        shown = changed
        if not alive:
            break
        time.sleep(POLL_SECONDS)
    if session.output.mode != "json":
        session.output.emit(one.data(), _one(one), [one.id])
    return one


def _table(rows: list[RunStatus]) -> Table:
    columns = ("run", "identifier", "category", "base", "state", "progress", "model")
    return Table(
        columns,
        [
            (
                row.id, row.concept.identifier, row.concept.category, row.base, row.state.value, row.progress,
                ", ".join(version.name for version in row.versions) or "-",
            )
            for row in rows
        ],
        empty="no run yet; start one with `dreamctl train`",
    )  # fmt: skip


def _one(one: RunStatus) -> list[str | Table]:
    from dreamctl.workflows.runs import sparkline

    left = f", about {clock(one.seconds_left)} left" if one.seconds_left is not None else ""
    facts = [
        ("run", one.id),
        ("concept", f"{one.concept.identifier} ({one.concept.category}, {one.concept.kind})"),
        ("trains", f"{one.method} on {one.base}, {one.backend}"),
        ("state", one.state.value + (f": {one.message}" if one.message else "")),
        ("progress", f"{one.progress} steps{left}"),
        ("model", ", ".join(version.name for version in one.versions) or "-"),
    ]
    if one.loss:
        facts.append(("loss", f"{sparkline(one.loss)} {one.loss[0]:.4f} → {one.loss[-1]:.4f}"))
    text = "\n".join(f"{name:<9} {value}" for name, value in facts)
    return [text, *(["", *one.log] if one.log else [])]
