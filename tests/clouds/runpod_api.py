"""The routes of RunPod's serverless API, for `tests.clouds.runpod`: what requests are answered with."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.clouds.runpod import Job, RunPodCloud

Said = tuple[int, Any]
"""A status, and what the body says in JSON (None: nothing)."""

LIMITS = {"executionTimeout": (5_000, 7 * 86_400_000, 600_000), "ttl": (10_000, 7 * 86_400_000, 86_400_000)}
"""Of the policy: the least, the most and the usual value, in milliseconds."""
_LARGEST = {"run": 10_000_000, "runsync": 20_000_000}
_HOLD = 5.0  # seconds that a worker's poll is held open
_CLIENTS = {
    "run": "POST", "runsync": "POST", "status": "GET", "stream": "GET", "cancel": "POST", "retry": "POST",
    "purge-queue": "POST", "health": "GET",
}  # fmt: skip
_WORKERS = {"job-take": "GET", "job-stop": "GET", "job-done": "POST", "job-stream": "POST", "ping": "GET"}


def handler(cloud: RunPodCloud) -> type[BaseHTTPRequestHandler]:
    """What serves the cloud's requests: its faults first, then the truth."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            names = urlsplit(self.path).path.removeprefix("/v2/").split("/")
            route = names[1] if len(names) > 1 else ""
            cloud.requests.append(f"{self.command} {route}")
            fault = cloud.next_fault(route)
            time.sleep(fault.delay)
            status, said = 0, None
            if fault.status is None or fault.handled:
                if route in cloud.before:
                    cloud.before[route](names[-1] if len(names) > 2 else "")
                status, said = self._truth(names, body)
            if fault.status is None:
                self._send(status, {"Content-Type": "application/json"}, json.dumps(said).encode())
            elif fault.status:
                self._send(fault.status, fault.headers, fault.body.encode())
            else:
                self.close_connection = True

        do_GET = do_POST = serve  # noqa: N815 - the library's names

        def _truth(self, names: list[str], body: bytes) -> Said:
            endpoint, route, more = names[0], names[1] if len(names) > 1 else "", names[2:]
            key = cloud.worker_key if route in _WORKERS else f"Bearer {cloud.token}"
            if self.headers.get("authorization") != key:
                return 401, {"error": "unauthorized"}
            if endpoint != cloud.endpoint or route not in (_CLIENTS | _WORKERS):
                return 404, {"error": "endpoint not found"}
            if (_CLIENTS | _WORKERS)[route] != self.command:
                return 405, {"error": "method not allowed"}
            with cloud.changed:
                cloud.sweep()
                if route in ("run", "runsync"):
                    asked = parse_qs(urlsplit(self.path).query).get("wait", ["90000"])[0]
                    return _submit(cloud, route, body, int(asked) / 1000)
                if route in _WORKERS:
                    return _work(cloud, route, more, body, self._gone)
                return _about(cloud, route, more[0]) if more else _endpoint(cloud, route)

        def _gone(self) -> bool:
            """Whether the client has left, as a worker that was killed: it must get no job."""
            try:
                return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            with contextlib.suppress(OSError):  # the client may have left
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status == 204:
                    body = b""
                else:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _submit(cloud: RunPodCloud, route: str, body: bytes, wait: float) -> Said:
    from tests.clouds.runpod import FINAL

    if len(body) > _LARGEST[route]:
        return 400, {"error": f"the body may have {_LARGEST[route]} bytes"}
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("input"), dict):
        return 400, {"error": "input is missing"}
    for name, (least, most, usual) in LIMITS.items():
        value = (said.get("policy") or {}).get(name, usual)
        if not isinstance(value, int) or not least <= value <= most:
            return 400, {"error": f"policy.{name} must be a number from {least} to {most}"}
    job = cloud.accept(said, sync=route == "runsync")
    if route == "runsync":
        cloud.changed.wait_for(lambda: job.status in FINAL, wait)
        return 200, job.shown()
    return 200, {"id": job.id, "status": "IN_QUEUE"}


def _endpoint(cloud: RunPodCloud, route: str) -> Said:
    """The routes that name no job."""
    if route == "purge-queue":
        queued = [job.id for job in cloud.jobs.values() if job.status == "IN_QUEUE"]
        for job_id in queued:
            del cloud.jobs[job_id]
        return 200, {"removed": len(queued), "status": "completed"}
    if route != "health":
        return 404, {"error": "request does not exist"}
    states = [job.status for job in cloud.jobs.values()]
    jobs = {
        "completed": states.count("COMPLETED"),
        "failed": states.count("FAILED") + states.count("TIMED_OUT"),
        "inProgress": states.count("IN_PROGRESS"),
        "inQueue": states.count("IN_QUEUE"),
        "retried": 0,
    }
    return 200, {"jobs": jobs, "workers": cloud.workers}


def _about(cloud: RunPodCloud, route: str, job_id: str) -> Said:
    """The routes that name a job."""
    if job_id not in cloud.jobs:
        return 404, {"error": "request does not exist"}
    job = cloud.jobs[job_id]
    if route == "stream":
        chunks, job.stream = job.stream, []
        return 200, {"id": job.id, "status": job.status, "stream": [{"output": one, "metrics": {}} for one in chunks]}
    if route == "cancel":
        cloud.cancel(job_id)
        return 200, {"id": job.id, "status": job.status}
    if route == "retry":
        if job.status not in ("FAILED", "TIMED_OUT"):
            return 400, {"error": f"a job that is {job.status} cannot be retried"}
        job.told, job.started, job.ended = {}, None, None
        cloud.requeue(job_id)
        return 200, {"id": job.id, "status": job.status}
    return (200, job.shown()) if route == "status" else (404, {"error": "endpoint not found"})


def _work(cloud: RunPodCloud, route: str, more: list[str], body: bytes, gone: Callable[[], bool]) -> Said:
    """The routes of workers; `more`: the worker, and for what it says of a job the job."""
    who = more[0] if more else ""
    if route == "ping":
        cloud.pings.append(who)
        return 200, {}
    if route == "job-stop":
        _hold(cloud, lambda: who in cloud.stopping or gone())
        jobs = [] if gone() else cloud.stopping.pop(who, [])
        return (200, {"jobsToStop": jobs}) if jobs else (204, None)
    if route == "job-take":
        _hold(cloud, lambda: cloud.queued() is not None or gone())
        job = cloud.queued()
        return (204, None) if job is None or gone() else _taken(cloud, job, who)
    job_id, said = more[1], json.loads(body)
    if job_id not in cloud.jobs:
        return 404, {"error": "request does not exist"}
    if route == "job-stream":
        cloud.jobs[job_id].stream.append(said.get("output"))
    elif said.get("status") == "IN_PROGRESS":
        cloud.progress(job_id, said.get("output"))
    elif "error" in said:
        cloud.fail(job_id, said["error"])
    else:
        cloud.finish(job_id, **({"output": said["output"]} if "output" in said else {}))
    return 200, {}


def _taken(cloud: RunPodCloud, job: Job, who: str) -> Said:
    cloud.start(job.id, who)
    return 200, {"id": job.id, **job.body}


def _hold(cloud: RunPodCloud, ready: Callable[[], bool]) -> None:
    """Wait until something is ready or the poll has been held long enough; time goes on meanwhile."""
    end = time.monotonic() + _HOLD
    while not ready() and time.monotonic() < end:
        cloud.changed.wait(0.2)
        cloud.sweep()
