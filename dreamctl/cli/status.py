"""`dreamctl status`, `logs` and `cancel`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table, clock

if TYPE_CHECKING:
    from dreamctl.context import Context
    from dreamctl.runfolder import RunFolder
    from dreamctl.workflows.follow import Wait
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
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT", help="Follow, and hear the providers' webhooks there; all runs without RUN."
        ),
    ] = None,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit 8 while it runs, 6 where it failed.")
    ] = False,
) -> None:
    """All runs, or one with its progress and loss."""
    from dreamctl.workflows.runs import all_status, one_status, unfinished

    context = session.context()
    if listen:
        _listening(session, context, run, listen)
        return
    if follow or (run is None and exit_status):
        run = run or "last"
    if run is None:
        rows = all_status(context)
        session.output.emit(
            lambda: {"runs": [row.data() for row in rows]}, lambda: _table(rows), [row.id for row in rows]
        )
        return
    one = _followed(session, context, run) if follow else one_status(context, run)
    if not follow:
        session.output.emit(one.data(), _one(one), [one.id])
    problem = unfinished(one) if exit_status else None
    if problem:
        session.output.note(problem.message)
        raise typer.Exit(problem.exit_code)


def logs(
    session: Session,
    run: Run = "last",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """The trainer's log."""
    from dreamctl.runfolder import LineTail
    from dreamctl.workflows.looking import look_at
    from dreamctl.workflows.runs import find_run

    context = session.context()
    found = find_run(context, run)
    look_at(context, found)
    if not follow:
        shown = found.log_tail(lines)
        session.output.emit({"run": found.id, "lines": shown}, "\n".join(shown) or "the log is empty", shown)
        return
    tail, alive, first = LineTail(found.log_file), True, True
    while alive:
        alive = found.at_work()
        news = [line.decode(errors="replace").rstrip("\r\n") for line in tail.new(torn=not alive)]
        for line in news[-lines:] if first else news:
            session.output.stream({"run": found.id, "line": line}, line)
        first = False
        if alive:
            time.sleep(context.backend(found.record().backend).pause(found))
            look_at(context, found)


def cancel(session: Session, run: Run) -> None:
    """Stop a run for good."""
    from dreamctl.domain.run import State
    from dreamctl.workflows.ending import cancel

    stopped = cancel(session.context(), run)
    state = stopped.state()
    if state is State.cancelled:
        text = f"cancelled run {stopped.id}"
    elif not stopped.at_work():
        text = f"run {stopped.id} had ended before it was cancelled: it is {state}"
    elif stopped.remote_file.exists():
        text = f"cancelling run {stopped.id}: its provider has not said yet that it ended"
    else:
        text = f"cancelling run {stopped.id}: its trainer ends at the next step"
    session.output.emit({"run": stopped.id, "state": state.value}, text, [stopped.id])


def _followed(session: Session, context: Context, run: str, wait: Wait = time.sleep) -> RunStatus:
    """Tell every change of one run until it has settled."""
    from dreamctl.domain.run import Event
    from dreamctl.runfolder import EventTail
    from dreamctl.workflows.follow import watched
    from dreamctl.workflows.looking import look_at
    from dreamctl.workflows.runs import find_run, one_status, run_status

    folder = find_run(context, run)
    look_at(context, folder)
    events = list[Event]()
    if folder.at_work():
        backend = context.backend(folder.record().backend)
        for news in watched(context, backend, folder, EventTail(folder.events_file), wait):
            events += news
            if session.output.mode == "json" and folder.at_work():
                session.output.stream(run_status(context, folder, events).data(), "")
    one = one_status(context, folder.id)
    if session.output.mode == "json":
        session.output.stream(one.data(), "")
    else:
        session.output.emit(one.data(), _one(one), [one.id])
    return one


def _listening(session: Session, context: Context, run: str | None, where: str) -> None:
    """Tell every change of one run, or of all at providers, as soon as a provider tells of it."""
    from dreamctl.cli.parse import address
    from dreamctl.workflows.listen import listen
    from dreamctl.workflows.looking import look_again
    from dreamctl.workflows.runs import find_run, run_status

    shown: dict[str, str] = {}

    def look(folder: RunFolder) -> bool:
        at_work = look_again(context, folder)
        one = run_status(context, folder, folder.events())
        line = f"{one.id}  {one.concept.identifier}  {one.state}  {one.progress}" + (
            f"  {one.message}" if one.message else ""
        )
        if shown.get(one.id) != line:
            shown[one.id] = line
            session.output.stream(one.data(), line)
        return at_work

    listen(context, None if run is None else [find_run(context, run)], address("--listen", where), look)


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


def _where(one: RunStatus) -> str:
    """Where it trains: this computer, or a provider, its place and its own id of the job."""
    place = f" {one.place}" if one.place else ""
    return f"{one.backend}{place}" + (f", job {one.remote_id}" if one.remote_id else "")


def _one(one: RunStatus) -> list[str | Table]:
    from dreamctl.workflows.runs import sparkline

    left = f", about {clock(one.seconds_left)} left" if one.seconds_left is not None else ""
    facts = [
        ("run", one.id),
        ("concept", f"{one.concept.identifier} ({one.concept.category}, {one.concept.kind})"),
        ("trains", f"{one.method} on {one.base}, {_where(one)}"),
        ("state", one.state.value + (f": {one.message}" if one.message else "")),
        ("progress", f"{one.progress} steps{left}"),
        ("model", ", ".join(version.name for version in one.versions) or "-"),
    ]
    if one.loss:
        facts.append(("loss", f"{sparkline(one.loss)} {one.loss[0]:.4f} → {one.loss[-1]:.4f}"))
    text = "\n".join(f"{name:<9} {value}" for name, value in facts)
    return [text, *(["", *one.log] if one.log else [])]
