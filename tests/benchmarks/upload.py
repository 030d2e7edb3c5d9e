"""`dreamctl upload` beside `aws s3 cp`: one file of 1 GiB to the same Ceph on this computer, in one run.

The digest of the file is recorded before, as after a first upload: aws computes none. Each turn has a cluster of
its own, which both fill once, in changing order. Memory: the largest size of the process for a small and a large file.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.prepare import LEADER
from tests.benchmarks.rows import BUILD, Row
from tests.servers.base import S3Server, program
from tests.servers.ceph import ceph

SIZE, SMALL = 1 << 30, 64 << 20
TURNS = 5


def run() -> list[Row]:
    """The speed of both, as aws's seconds divided by ours, and the memory that a large file costs more."""
    with tempfile.TemporaryDirectory() as scratch:
        large, small = _file("large", SIZE), _file("small", SMALL)
        environment = {**os.environ, "DREAMCTL_HOME": f"{scratch}/home", "AWS_EC2_METADATA_DISABLED": "true"}
        for file in (large, small):
            _seconds([*_DREAMCTL, str(file), "--to", Path(scratch, "recorded").as_uri()], environment)
        aws = ours = math.inf
        for turn in range(TURNS):
            with ceph(Path(scratch, f"ceph{turn}")) as cluster:
                keys = _keys(cluster.plain)
                copy = [
                    str(program("aws")),
                    "s3",
                    "cp",
                    "--quiet",
                    "--endpoint-url",
                    cluster.plain.endpoint,
                    str(large),
                ]
                send = [*_DREAMCTL, str(large), "--to", "s3://bench/ours"]
                lines = [([*copy, "s3://bench/aws"], True), (send, False)]
                for line, theirs in lines if turn % 2 else reversed(lines):
                    seconds = _seconds(line, environment | keys)
                    print(f"  {'aws s3 cp' if theirs else 'dreamctl upload'}: {seconds:.2f} s", flush=True)
                    aws, ours = (min(aws, seconds), ours) if theirs else (aws, min(ours, seconds))
        with ceph(Path(scratch, "ceph")) as cluster:
            few, many = (_memory(file, environment | _keys(cluster.plain)) for file in (small, large))
    return [
        Row("speed beside aws s3 cp, 1 GiB", aws / ours, 1, "at least", 0.95, "×"),
        Row("MB a second", SIZE / 1e6 / ours, rate := SIZE / 1e6 / aws, "at least", 0.95 * rate, "MB/s"),
        Row("memory for 1 GiB beside 64 MiB", (many - few) / 1e6, 0, "at most", 16, "MB"),
    ]


_DREAMCTL = [sys.executable, "-m", "dreamctl", "upload", "-q"]


def _file(name: str, size: int) -> Path:
    """Random bytes, made once."""
    path = BUILD / "upload" / f"{name}.bin"
    if not (path.exists() and path.stat().st_size == size):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
    return path


def _keys(server: S3Server) -> dict[str, str]:
    server.client().create_bucket(Bucket="bench")
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "DREAMCTL_S3_ENDPOINT": server.endpoint,
    }


def _seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _memory(file: Path, environment: dict[str, str]) -> int:
    command = [sys.executable, "-c", LEADER, "upload", "-q", str(file), "--to", "s3://bench/memory"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(re.findall(r"\d+", done.stdout)[-1]) * 1024
