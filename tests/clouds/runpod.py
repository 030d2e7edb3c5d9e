"""RunPod's serverless queue on loopback: the API of its clients, and the one that the worker loop of its SDK polls.

A test plays the worker (`start`, `progress`, `finish`, `fail`), or runs a real one (`worker`); it breaks what it likes
(`fault`, `lose_answer`, `before`), lets time pass (`pass_time`), and counts what was accepted (`submissions`).

    with runpod_cloud() as cloud:
        ...                       # settings: runpod_url = cloud.url, runpod_endpoint = cloud.endpoint; cloud.token
        cloud.finish(cloud.newest, output={"fine": True})
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.clouds import runpod_api
from tests.servers.base import LEASH

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


@dataclass
class Job:
    """A job; `body` is the request as it came, `told` what /status adds to its state. Times are seconds."""

    id: str
    body: dict[str, Any]
    submitted: float
    status: str = "IN_QUEUE"
    told: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    stream: list[Any] = field(default_factory=list)

    def limit(self, name: str) -> float:
        """Seconds of one of the policy's limits."""
        wanted = (self.body.get("policy") or {}).get(name)
        return float(runpod_api.LIMITS[name][2] if wanted is None else wanted) / 1000

    def shown(self) -> dict[str, Any]:
        """What /status says; never the input, the policy or s3Config."""
        shown: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.started is not None:
            shown["delayTime"] = int((self.started - self.submitted) * 1000)
            shown["workerId"] = self.worker
            if self.ended is not None:
                shown["executionTime"] = int((self.ended - self.started) * 1000)
        return {**shown, **self.told}


@dataclass
class Fault:
    """What the next `times` requests of a route get. `status` 0: a closed connection; None: the true answer.

    `handled`: only after the request has been carried out. `delay`: seconds before anything happens.
    """

    status: int | None
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    handled: bool = False
    delay: float = 0.0


class RunPodCloud:
    """One endpoint. Its attributes may be changed by a test at any time."""

    def __init__(self) -> None:
        self.endpoint = "ep"
        self.token = f"rpa_{secrets.token_hex(16)}"
        self.worker_key = f"sk-worker-{secrets.token_hex(8)}"
        self.workers = {"idle": 1, "initializing": 0, "ready": 1, "running": 0, "throttled": 0, "unhealthy": 0}
        self.keep = 1800.0  # seconds that a job is remembered after its end
        self.webhook_pause = 10.0  # seconds between tries
        self.late_progress_wins = False  # progress that comes after the end makes the job run again (runpod-python 250)
        self.odd_errors_complete = False  # an error that is no text ends as COMPLETED without output (299)
        self.jobs: dict[str, Job] = {}
        self.submissions: list[dict[str, Any]] = []  # bodies of accepted requests; each is a job, and billed
        self.requests: list[str] = []  # "GET status"; what was refused is among them
        self.webhooks: list[tuple[str, int]] = []  # each try: the job, and what the receiver answered (0: nothing)
        self.pings: list[str] = []  # the workers that sent them
        self.before: dict[str, Callable[[str], None]] = {}  # by route; called with the job's id, or ""
        self.changed = threading.Condition(threading.RLock())
        self.stopping: dict[str, list[str]] = {}  # by worker: jobs that it is to stop
        self._faults: dict[str, list[Fault]] = {}
        self._passed = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), runpod_api.handler(self))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Without the endpoint, as in the setting `runpod_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v2"

    @property
    def newest(self) -> str:
        """The id of the job that was submitted last."""
        return list(self.jobs)[-1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def accept(self, body: dict[str, Any], sync: bool = False) -> Job:
        """A job for a request that is in order; `POST run` does this too."""
        with self.changed:
            job = Job(f"{'sync-' if sync else ''}{secrets.token_hex(12)}-u1", body, self.now())
            self.jobs[job.id] = job
            self.submissions.append(body)
            self.changed.notify_all()
            return job

    # what a test breaks

    def fault(self, route: str, status: int | None, times: int = 1, **more: Any) -> None:
        """Break the next `times` requests of a route ("run", "status" …); see `Fault`. Several follow each other."""
        with self.changed:
            self._faults.setdefault(route, []).append(Fault(status, times, **more))

    def lose_answer(self, route: str = "run") -> None:
        """Carry out the next request, and close the connection without an answer."""
        self.fault(route, 0, handled=True)

    def next_fault(self, route: str) -> Fault:
        """The fault of the request that has just come, used up by this; one that breaks nothing where none waits."""
        with self.changed:
            waiting = self._faults.get(route, [])
            if not waiting:
                return Fault(None)
            waiting[0].times -= 1
            return waiting[0] if waiting[0].times > 0 else waiting.pop(0)

    def forget(self, job_id: str) -> None:
        """As if the job had expired: /status answers 404."""
        with self.changed:
            del self.jobs[job_id]

    # time

    def now(self) -> float:
        return time.monotonic() + self._passed

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        with self.changed:
            self._passed += seconds
            self.sweep()

    def sweep(self) -> None:
        """What time does: limits are reached, jobs forgotten."""
        now = self.now()
        for job in list(self.jobs.values()):
            if job.status == "IN_PROGRESS" and now > (job.started or now) + job.limit("executionTimeout"):
                self._end(job.id, "TIMED_OUT", {"error": "job timed out"})
            kept = 60.0 if job.id.startswith("sync-") else self.keep
            if now > job.submitted + job.limit("ttl") or (job.ended is not None and now > job.ended + kept):
                self._stop_worker(job)
                del self.jobs[job.id]

    def wait_for(self, job_id: str, *states: str, seconds: float = 60.0) -> Job:
        """The job once it is in one of `states` (in any final one). Raises TimeoutError."""
        wanted = frozenset(states) or FINAL
        with self.changed:
            if not self.changed.wait_for(lambda: self.jobs[job_id].status in wanted, seconds):
                raise TimeoutError(f"{self.jobs[job_id]} is not {' or '.join(sorted(wanted))} after {seconds:.0f} s")
            return self.jobs[job_id]

    # the worker's part

    def queued(self) -> Job | None:
        """The job that a worker gets next."""
        return next((job for job in self.jobs.values() if job.status == "IN_QUEUE"), None)

    def start(self, job_id: str, worker: str = "w0") -> None:
        """A worker takes the job."""
        with self.changed:
            job = self.jobs[job_id]
            job.status, job.started, job.ended, job.worker = "IN_PROGRESS", self.now(), None, worker
            self.changed.notify_all()

    def progress(self, job_id: str, output: Any) -> None:
        """A worker says how far it is; after the end it does not count, unless `late_progress_wins`."""
        with self.changed:
            job = self.jobs[job_id]
            if job.status == "IN_QUEUE" or (job.status in FINAL and self.late_progress_wins):
                self.start(job_id)
            if job.status == "IN_PROGRESS":
                job.told = {"output": output}
                self.changed.notify_all()

    def finish(self, job_id: str, **told: Any) -> None:
        """The job is COMPLETED: `finish(id, output={…})`, or without an output."""
        self._end(job_id, "COMPLETED", told)

    def fail(self, job_id: str, error: Any = "it broke") -> None:
        """The job is FAILED; an error may be a text, a JSON text, a list, a dict."""
        odd = self.odd_errors_complete and not isinstance(error, str)
        self._end(job_id, "COMPLETED" if odd else "FAILED", {} if odd else {"error": error})

    def cancel(self, job_id: str) -> None:
        """The job is CANCELLED, and its worker told to stop it."""
        self._end(job_id, "CANCELLED", {})

    def requeue(self, job_id: str) -> None:
        """The platform runs a job again, as it does when it has lost sight of a worker."""
        with self.changed:
            self.jobs[job_id].status = "IN_QUEUE"
            self.changed.notify_all()

    def _end(self, job_id: str, status: str, told: dict[str, Any]) -> None:
        with self.changed:
            job = self.jobs[job_id]
            if job.status in FINAL:
                return
            if status in ("CANCELLED", "TIMED_OUT"):
                self._stop_worker(job)
            job.started = self.now() if job.started is None else job.started
            job.status, job.told, job.ended = status, told, self.now()
            self.changed.notify_all()
            if job.body.get("webhook") and status != "CANCELLED":
                envelope = {**job.shown(), "input": job.body["input"], "webhook": job.body["webhook"]}
                threading.Thread(target=self._tell, args=(envelope,), daemon=True).start()

    def _stop_worker(self, job: Job) -> None:
        if job.status == "IN_PROGRESS" and job.worker:
            self.stopping.setdefault(job.worker, []).append(job.id)
            self.changed.notify_all()

    def _tell(self, envelope: dict[str, Any]) -> None:
        """Call a webhook, and twice more where that fails."""
        for attempt in range(3):
            time.sleep(self.webhook_pause if attempt else 0)
            request = urllib.request.Request(envelope["webhook"], json.dumps(envelope).encode())
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    status = int(answer.status)
            except OSError as error:
                status = int(getattr(error, "code", 0))
            with self.changed:
                self.webhooks.append((envelope["id"], status))
                self.changed.notify_all()
            if status == 200:
                return


@contextlib.contextmanager
def runpod_cloud() -> Iterator[RunPodCloud]:
    """The cloud while the block lasts."""
    cloud = RunPodCloud()
    try:
        yield cloud
    finally:
        cloud.close()


@contextlib.contextmanager
def worker(
    cloud: RunPodCloud,
    python: Path,
    program: Path | str,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    name: str = "w1",
) -> Iterator[subprocess.Popen[bytes]]:
    """The worker loop of RunPod's SDK while the block lasts: `program` is a file, or a module, that starts it.

    `python` has the SDK. The process leads a group of its own, which is killed at the end. `env` is added to this
    process's environment; HOME is an empty folder, so that nobody's RunPod account is found there.
    """
    url = f"{cloud.url}/{cloud.endpoint}"
    start = [str(program)] if isinstance(program, Path) else ["-m", program]
    command = [sys.executable, "-IS", str(LEASH), str(os.getpid()), str(python), *start]
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            "HOME": home,
            "PYTHONUNBUFFERED": "1",
            "RUNPOD_AI_API_KEY": cloud.worker_key,
            "RUNPOD_POD_ID": name,
            "RUNPOD_ENDPOINT_ID": cloud.endpoint,
            "RUNPOD_PING_INTERVAL": "2000",
            "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=cpu",
            "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=cpu",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=cpu",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "1",
            **(env or {}),
        }
        output = stack.enter_context(open(log or os.devnull, "ab"))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
