"""A worker's errands: trainings that end well, badly, or when somebody asks; claims; and what is refused."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dreamctl.domain.errand import (
    INLINE_MODEL,
    Abilities,
    Answer,
    Archive,
    News,
    Place,
    claim_key,
    outcome_key,
    result_key,
)
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import read_json
from dreamctl.http import redact
from dreamctl.runfolder import RunFolder
from dreamctl.storage.local import LocalStorage
from dreamctl.workers import outbox
from dreamctl.workers.errands import ALLOW_PRIVATE, carry_out, delivered, inline, read_errand
from dreamctl.workers.trainer import Cancelled
from tests.storage.stores import random_file
from tests.workers.errand_kit import ENDLESS, errand_of, processes_in, quick_recipe, quick_run, states


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return quick_run(tmp_path)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers make their folders; it is empty again after each errand."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)  # asked for anew
    return folder


def quiet(news: News) -> None: ...


def store(tmp_path: Path) -> Place:
    return Place(url=(tmp_path / "bucket").as_uri())


def test_an_outcome_that_fits_comes_in_the_answer(tmp_path: Path) -> None:
    file, digest = random_file(tmp_path / "outcome.zip", 1000)
    outcome = inline(file).outcome
    assert outcome is not None
    assert (outcome.sha256, outcome.bytes, outcome.key, outcome.url) == (digest, 1000, None, None)
    assert base64.b64decode(outcome.data or "") == file.read_bytes()
    os.truncate(file, INLINE_MODEL + 1)
    with pytest.raises(DreamctlError, match=r"has 6.0 MB, and 6 MB fit") as caught:
        inline(file)
    assert "storage = s3://" in (caught.value.hint or "")


def test_a_trainer_that_fails_says_why(run: RunFolder, temporary: Path) -> None:
    recipe = run.recipe()
    wrong = recipe.model_copy(update={"base": recipe.base.model_copy(update={"digest": "0" * 64})})
    errand = errand_of(run).model_copy(update={"recipe": wrong})
    news: list[News] = []
    with pytest.raises(DreamctlError, match="builtin has changed since this was written") as caught:
        carry_out(errand, "job-1", news.append)
    assert "--again" in (caught.value.hint or "")
    assert states(news)[-1] == "failed"
    assert list(temporary.iterdir()) == []


def test_a_cancelled_training_leaves_no_process_and_gives_its_claim_up(tmp_path: Path, temporary: Path) -> None:
    run = quick_run(tmp_path, quick_recipe(ENDLESS))
    stop, found = threading.Event(), list[int]()

    def tell(news: News) -> None:
        found.extend(processes_in(temporary))
        stop.set()

    with pytest.raises(Cancelled):
        carry_out(errand_of(run, store(tmp_path)), "job-1", tell, stop=stop)
    assert found
    assert processes_in(temporary) == []
    assert list(temporary.iterdir()) == []
    claim = tmp_path / "bucket" / claim_key(run.id)
    assert read_json(claim) == {"schema": 1, "job": "job-1", "ended": True}
    storage = LocalStorage(store(tmp_path).url)
    assert outbox.claim(storage, run.id, "job-2", tmp_path) is None, "another may train it now"
    assert read_json(claim) == {"schema": 1, "job": "job-2"}


def test_a_run_that_another_job_has_is_left_to_it(run: RunFolder, tmp_path: Path) -> None:
    storage, place = LocalStorage(store(tmp_path).url), store(tmp_path)
    assert outbox.claim(storage, run.id, "job-1", tmp_path) is None
    assert outbox.claim(storage, run.id, "job-1", tmp_path) is None, "the platform runs a job again"
    assert carry_out(errand_of(run, place), "job-2", quiet) == Answer(claimed_by="job-1")


def test_of_many_who_claim_a_run_at_once_one_gets_it(tmp_path: Path) -> None:
    storage, taken = LocalStorage(store(tmp_path).url), list[str | None]()
    (tmp_path / "bucket").mkdir()

    def claim(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        taken.append(outbox.claim(storage, "r", f"job-{number}", folder))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(None) == 1
    assert len(set(taken)) == 2


def test_half_a_result_is_none(tmp_path: Path) -> None:
    storage, archive = LocalStorage(store(tmp_path).url), tmp_path / "outcome.zip"
    archive.write_bytes(b"an archive")
    left = outbox.leave(storage, "r", archive)
    assert outbox.earlier(storage, "r", tmp_path) == left
    (tmp_path / "bucket" / outcome_key("r")).write_bytes(b"another")
    assert outbox.earlier(storage, "r", tmp_path) is None
    (tmp_path / "bucket" / result_key("r")).write_text("{")
    assert outbox.earlier(storage, "r", tmp_path) is None


def test_an_outcome_is_not_lost_where_the_storage_fails_in_the_end(tmp_path: Path) -> None:
    storage = LocalStorage(store(tmp_path).url)
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "models").write_text("in the way")
    file, digest = random_file(tmp_path / "outcome.zip", 1000)
    outcome = delivered(storage, "r", file).outcome
    assert outcome is not None
    assert (outcome.sha256, outcome.key, base64.b64decode(outcome.data or "")) == (digest, None, file.read_bytes())
    os.truncate(file, INLINE_MODEL + 1)
    with pytest.raises(DreamctlError, match="models"):
        delivered(storage, "r", file)


def test_pictures_that_are_not_those_that_were_sent_are_not_trained_on(run: RunFolder, tmp_path: Path) -> None:
    errand = errand_of(run)
    assert errand.archive is not None
    for change in ({"sha256": "0" * 64}, {"bytes": 5}, {"data": base64.b64encode(b"PK").decode()}):
        broken = errand.model_copy(update={"archive": errand.archive.model_copy(update=change)})
        with pytest.raises(DreamctlError, match="is not the one that was sent"):
            carry_out(broken, "job", quiet)
    with pytest.raises(InvalidInput, match="not base64"):
        carry_out(errand.model_copy(update={"archive": errand.archive.model_copy(update={"data": "&"})}), "job", quiet)


def test_an_archive_is_fetched_from_public_addresses_unless_the_worker_says_otherwise(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shelf(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"something else")

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/data.zip?X-Amz-Signature=verysecret"
        errand = errand_of(run, url=url)
        with pytest.raises(DreamctlError) as refused:
            carry_out(errand, "job", quiet)
        monkeypatch.setenv(ALLOW_PRIVATE, "1")
        with pytest.raises(DreamctlError, match="not the one that was sent"):
            carry_out(errand, "job", quiet)
        with pytest.raises(DreamctlError, match="is not there") as gone:
            carry_out(errand_of(run, url=url.replace("data.zip", "gone.zip")), "job", quiet)
        server.shutdown()
    for error in (refused.value, gone.value):
        assert "verysecret" not in f"{error.message} {error.hint}"
    assert "verysecret" not in repr(errand)
    assert ALLOW_PRIVATE in (refused.value.hint or "")
    assert redact(url) == "***"


def test_what_a_worker_is() -> None:
    told = carry_out(read_errand({"schema": 1, "op": "describe"}), "job", quiet)
    assert isinstance(told, Abilities)
    assert (told.accepts["run"], told.accepts["recipe"], told.accepts["errand"]) == (1, 1, 1)
    assert "sd15" in told.families
    assert told.device


def test_torch_is_not_imported_to_carry_an_errand_out() -> None:
    """A worker that waits for jobs holds no GPU memory."""
    code = "import sys; from dreamctl.workers import errands; errands.describe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "no errand of dreamctl's"),
        (["train"], "no errand of dreamctl's"),
        ({"op": "dance"}, "op = 'dance'"),
        ({"op": "train", "stile": 1}, "unknown key 'stile'"),
        ({"op": "describe", "schema": 2}, "the errand has schema 2, and this worker"),
        ({"op": "train", "recipe": {"schema": 7}}, "the recipe has schema 7"),
        ({"op": "train", "run": {"schema": 3}}, "the run has schema 3"),
        ({"op": "train", "archive": "https://x.example/?X-Amz-Signature=abcdef"}, "archive = 'https://x.example/"),
    ],
)
def test_what_is_no_errand_is_refused_with_a_sentence(data: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_errand(data)
    assert sentence in caught.value.message
    assert "abcdef" not in caught.value.message


def test_an_errand_that_lacks_something_is_refused(run: RunFolder, tmp_path: Path) -> None:
    whole = errand_of(run)
    assert whole.run is not None

    def refused(**changes: Any) -> str:
        with pytest.raises(InvalidInput) as caught:
            carry_out(whole.model_copy(update=changes), "job", quiet)
        return caught.value.message

    assert "lacks recipe" in refused(recipe=None)
    assert "archive must come" in refused(archive=None)
    assert "archive must come" in refused(archive=Archive(sha256="", bytes=1))
    assert "no run's id" in refused(run=whole.run.model_copy(update={"id": "../../etc"}))
    assert "names no storage" in refused(storage=Place(url="/tmp/x"))
    assert "a key that is none" in refused(storage=Place(url="file:///tmp/x", access={"endpoint": "x"}))
    with pytest.raises(DreamctlError, match="no storage named 'ftp'"):
        carry_out(whole.model_copy(update={"storage": Place(url="ftp://x/y")}), "job", quiet)


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_is_a_sentence(
    run: RunFolder, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, digest = random_file(tmp_path / "large", 200_000)
    data = base64.b64encode(file.read_bytes()).decode()
    large = errand_of(run).model_copy(update={"archive": Archive(sha256=digest, bytes=200_000, data=data)})
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(DreamctlError, match="no space left") as caught:
        carry_out(large, "job", quiet)
    assert caught.value.hint == "give the worker a larger disk"
