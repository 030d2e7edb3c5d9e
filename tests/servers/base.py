"""What the object stores of the tests have in common: how their programs are found, started, awaited and killed."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds; the machines that run the tests share their cores
ROOT = Path(__file__).parents[2]
LEASH = Path(__file__).with_name("leash.py")


class Missing(Exception):
    """A server cannot be started here: the message says what is missing, and how to get it."""


class Died(Exception):
    """A server ended, or did not answer in time: the message has the end of its log."""


@dataclass(frozen=True)
class S3Server:
    """A running S3 server. `other` are the keys of a second user, who has no rights on the first one's buckets."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    certificate: Path | None = None
    other: tuple[str, str] | None = None

    def client(self, **config: Any) -> Any:
        """boto3's own client, for what a test prepares and asserts; `config` goes to botocore's Config."""
        import boto3
        from botocore.config import Config

        settings = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **config,
        }
        return boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1").client(
            "s3",
            endpoint_url=self.endpoint,
            verify=str(self.certificate) if self.certificate else None,
            config=Config(**settings),
        )

    def as_user(self, access_key: str, secret_key: str) -> S3Server:
        """The same server with other keys."""
        return dataclasses.replace(self, access_key=access_key, secret_key=secret_key, other=None)

    def at(self, endpoint: str) -> S3Server:
        """The same server under another address, such as a proxy's."""
        return dataclasses.replace(self, endpoint=endpoint)


def program(name: str) -> Path:
    """A program of the stores that `make servers` puts into `.servers`. Raises Missing."""
    folder = Path(os.environ.get("DREAMCTL_TEST_SERVERS_BIN") or ROOT / ".servers" / "bin")
    if not (folder / name).exists():
        raise Missing(f"needs {name} in {folder}: `make servers`")
    return folder / name


class Daemons:
    """Programs in the foreground that write a log each into `folder`; on leaving, all of them are killed.

    They also die when the thread that started them ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._reserved: list[socket.socket] = []

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._running.values():
            process.wait()
        for reserved in self._reserved:
            reserved.close()

    def port(self) -> int:
        """A free port of 127.0.0.1. On Linux nobody else gets it meanwhile: it is bound here, though not listening."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
        if sys.platform == "linux":
            self._reserved.append(reserved)
        else:
            reserved.close()
        return port

    def start(self, name: str, *command: str | Path) -> None:
        """Start a server; its output goes to `<name>.log`."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                _on_leash(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the tests, which kill it in order
            )

    def run(self, *command: str | Path) -> None:
        """Run a program to its end. Raises Died."""
        try:
            subprocess.run(
                _on_leash(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=_environment(),
                timeout=PATIENCE,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise Died(f"{error.cmd[3:]} ended with {error.returncode}\n{error.stdout}{error.stderr}") from error
        except subprocess.TimeoutExpired as error:
            raise Died(f"{error.cmd[3:]} took more than {PATIENCE:.0f} s\n{self._logs()}") from error

    def wait(self, *urls: str) -> None:
        """Until every one of `urls` answers something. Raises Died."""
        deadline = time.monotonic() + PATIENCE
        for url in urls:
            while not _answers(url):
                for name, process in self._running.items():
                    if process.poll() is not None:
                        raise Died(f"{name} ended with {process.returncode}\n{self._logs()}")
                if time.monotonic() > deadline:
                    raise Died(f"{url} did not answer within {PATIENCE:.0f} s\n{self._logs()}")
                time.sleep(0.02)

    def _logs(self) -> str:
        """The last lines of every log."""
        tails = []
        for log in sorted(self.folder.glob("*.log")):
            tails += [f"-- {log.name}", *log.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(tails)


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A folder that is there while the block lasts: a server's data should not fill what pytest keeps."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on_leash(command: tuple[str | Path, ...]) -> list[str]:
    # -I -S: it starts in a few milliseconds, whatever the environment says.
    return [sys.executable, "-IS", str(LEASH), str(os.getpid()), *map(str, command)]


def _environment() -> dict[str, str]:
    """Without what steers this Python or another cluster: some of the programs are Python themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CEPH_"))}


def _answers(url: str) -> bool:
    """Whether an HTTP server answers there; which answer, and with which certificate, does not matter."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=5, context=trusting)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", parts.path or "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
    return True
