"""Runs at RunPod when things go wrong: lost answers, kills, full disks, what must never be paid or given up."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamctl.backends import journal
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import State
from dreamctl.errors import (
    ConsentRequired,
    DiskFull,
    InvalidInput,
    ProviderError,
    RunFailed,
)
from dreamctl.files import write_json
from dreamctl.http import AnswerLost
from dreamctl.runfolder import EventTail, RunFolder
from dreamctl.workflows.ending import cancel, remove
from dreamctl.workflows.follow import follow
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.runs import one_status
from dreamctl.workflows.train import train
from tests.clouds.robot import Robot
from tests.workflows.at_runpod import (  # noqa: F401 (fixtures)
    KNOBS,
    Open,
    acquainted,
    cloud_fixture,
    opened_fixture,
    taught,
    the_run,
    worker_fixture,
)


@contextlib.contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """A plain web server on a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def lost_run(opened: Open, worker: Robot) -> RunFolder:
    """A run whose submission's answer was lost."""
    context = opened()
    acquainted(context)
    worker.cloud.lose_answer()
    with pytest.raises(AnswerLost):
        taught(context)
    return the_run(context)


def test_resubmit_without_consent_gives_nothing_up(opened: Open, worker: Robot) -> None:
    run = lost_run(opened, worker)
    with pytest.raises(ConsentRequired):
        train(opened(max_cost=None), Wish(resume=run.id, resubmit=True))
    assert run.state() is State.submitting, "the next command still knows that it may have arrived"
    with pytest.raises(ProviderError, match="cannot be found out"):
        train(opened(), Wish(resume=run.id))
    assert worker.submitted == 1


def test_attach_is_a_way_out_of_a_lost_answer(opened: Open, worker: Robot) -> None:
    run = lost_run(opened, worker)
    done = taught(opened(), attach=f"runpod:{worker.cloud.newest}")
    assert done.run and done.run.id == run.id and done.versions and worker.submitted == 1


def test_attach_never_pays(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    first = taught(opened(), detach=True)
    assert first.run is not None
    worker.cloud.fail(worker.cloud.newest)
    with pytest.raises(RunFailed):
        train(opened(), Wish(resume=first.run.id))
    second = taught(opened(max_cost=None), attach=f"runpod:{worker.cloud.newest}", detach=True)
    assert second.run is not None and worker.submitted == 1


def test_following_a_run_that_may_not_have_arrived_ends(opened: Open, worker: Robot) -> None:
    run = lost_run(opened, worker)
    context = opened()
    with pytest.raises(ProviderError, match="cannot be found out"):
        follow(context, context.backend(), run, EventTail(run.events_file))


def test_an_id_that_cannot_be_written_down_is_told(
    opened: Open, worker: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = opened()
    acquainted(context)
    kept: list[RemoteJob] = []

    def full(run: RunFolder, job: RemoteJob) -> RemoteJob:
        if job.id:
            raise DiskFull("no space left on device")
        kept.append(job)
        write_json(run.remote_file, job.plain())
        return job

    with monkeypatch.context() as patched:
        patched.setattr(journal, "keep", full)
        with pytest.raises(ProviderError, match="could not be written down") as told:
            taught(context)
    assert f"--attach runpod:{worker.cloud.newest}" in str(told.value.hint)
    assert the_run(context).state() is State.submitting and worker.submitted == 1


def test_a_kill_between_the_model_and_the_end_loses_nothing(opened: Open, worker: Robot) -> None:
    done = taught(opened())
    assert done.run is not None
    lines = done.run.events_file.read_text().splitlines(keepends=True)
    done.run.events_file.write_text("".join(line for line in lines if "succeeded" not in line))
    worker.cloud.forget(worker.cloud.newest)
    assert one_status(opened(), done.run.id).state is State.succeeded


def test_what_lies_at_a_url_must_be_the_run_s_pictures(opened: Open, worker: Robot, user: Path) -> None:
    site = user / "site"
    site.mkdir()
    with zipfile.ZipFile(site / "other.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with serving_folder(site) as url, pytest.raises(InvalidInput, match="does not hold"):
        taught(opened(), data_url=f"{url}/other.zip")
    assert worker.submitted == 0


def test_a_run_that_nobody_can_end_can_be_removed(opened: Open, worker: Robot) -> None:
    run = lost_run(opened, worker)
    with pytest.raises(ProviderError, match="cannot be found out"):
        cancel(opened(), run.id)
    assert remove(opened(), run.id, yes=True).name == run.id and not run.path.exists()
