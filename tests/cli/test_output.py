"""The sink: one document, plain columns off a terminal, a heartbeat instead of a bar."""

from __future__ import annotations

import io
import json
import time

import pytest

from dreamctl.cli import output as module
from dreamctl.cli.output import Output, Table, clock, plain_table

TABLE = Table(("id", "state"), [("a" * 90, "done"), ("b", "[red]not markup[/red]")])


def sink(mode: module.Mode) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(mode, out=out, err=err), out, err


def test_each_mode_writes_its_own_result() -> None:
    output, out, err = sink("text")
    output.emit({"x": 1}, "hello", ["1", "2"])
    assert (out.getvalue(), err.getvalue()) == ("hello\n", "")
    output, out, err = sink("quiet")
    output.emit({"x": 1}, "hello", ["1", "2"])
    assert (out.getvalue(), err.getvalue()) == ("1\n2\n", "")
    output, out, err = sink("json")
    output.emit({"x": 1}, "hello", ["1", "2"])
    assert (json.loads(out.getvalue()), err.getvalue()) == ({"schema": 1, "x": 1}, "")


def test_a_piped_table_cuts_nothing_off() -> None:
    lines = plain_table(TABLE)
    assert lines[1].startswith("a" * 90 + "  done")
    assert "[red]not markup[/red]" in lines[2]


def test_off_a_terminal_long_work_beats_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    output, out, err = sink("text")
    for step in range(1, 200):
        now[0] += 1
        output.progress("training", step, 200, "loss 0.1")
    assert len(err.getvalue().splitlines()) == 3
    assert "training 60/200" in err.getvalue()
    assert out.getvalue() == ""


@pytest.mark.parametrize("mode", ["quiet", "json"])
def test_quiet_and_json_keep_stdout_clean(mode: module.Mode) -> None:
    output, out, err = sink(mode)
    output.note("note")
    output.warn("beware")
    assert out.getvalue() == ""
    assert "warning: beware" in err.getvalue()


def test_nobody_is_asked_off_a_terminal() -> None:
    output, _, _ = sink("text")
    assert output.confirm("Delete?") is None
    assert output.ask("Category") is None


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (754, "12:34"), (3723, "1:02:03")])
def test_durations_are_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text
