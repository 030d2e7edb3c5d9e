"""`dreamctl prepare` with URLs as people call it: its screens, and what signals leave."""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dreamctl.cli.app import main
from tests.pictures import packed, quarters
from tests.website import Answer, Site, serving, write_certificate
from tests.workflows.preparing import snapshot

PICTURE = packed(quarters(), "PNG")
PREPARE = [sys.executable, "-m", "dreamctl", "prepare"]
WORDS = ["--size", "64", "--allow-private"]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


def test_the_screen(site: Site, user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = site.put("/a.png", Answer(PICTURE))
    with zipfile.ZipFile(user / "heap.zip", "w") as archive:
        archive.writestr("b.png", PICTURE)
    assert main(["prepare", url, f"{site.url}/gone.png?sig=GEHEIM", "heap.zip", *WORDS]) == 0
    out, err = capsys.readouterr()
    assert f"a.jpg    127.0.0.1:{site.port}/a.png" in out and "heap.zip/b.png" in out
    assert "URLs: 1 of 2 gave pictures" in out.splitlines()
    assert f"warning: {site.url}/gone.png?*** is not there (404): skipped (check the address)" in err.splitlines()


def test_json_tells_each_url(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    url = site.put("/a.png", Answer(PICTURE))
    assert main(["prepare", url, f"{site.url}/gone.png?sig=GEHEIM", "--json", *WORDS]) == 0
    assert json.loads(capsys.readouterr().out)["urls"] == [
        {"url": url, "file": "a.jpg", "reason": None, "files": 0},
        {"url": f"{site.url}/gone.png?***", "file": None, "reason": "is not there (404)", "files": 0},
    ]


def test_without_the_flag_private_addresses_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "http://127.0.0.1/a.png"]) == 1
    assert capsys.readouterr().err == (
        "warning: http://127.0.0.1/a.png leads to this computer (127.0.0.1), which is not fetched from: skipped"
        " (--allow-private allows it for URLs that you trust)\n"
        "error: no file can be used: http://127.0.0.1/a.png leads to this computer (127.0.0.1),"
        " which is not fetched from\n"
        "  --allow-private allows it for URLs that you trust\n"
    )


def test_https_with_certificates_of_one_s_own(user: Path, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(tls) as site:
        command = [*PREPARE, site.put("/a.png", Answer(PICTURE)), *WORDS, "--json"]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1 and "no valid certificate" in refused.stderr
        trusting = subprocess.run(["env", f"SSL_CERT_FILE={certificate}", *command], capture_output=True, text=True)
    assert json.loads(trusting.stdout)["urls"][0]["file"] == "a.jpg"


class Slow:
    """A page that sends a part and then waits until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(PICTURE)))
        request.end_headers()
        request.wfile.write(PICTURE[: len(PICTURE) // 2])
        request.wfile.flush()
        self.begun.set()
        self.go.wait(60)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_download_leaves_nothing_half_true(
    site: Site, user: Path, tmp_path: Path, number: signal.Signals
) -> None:
    slow = Slow()
    words = [site.put("/a.png", Answer(PICTURE)), site.put("/b.png", slow, Answer(PICTURE)), *WORDS]
    with zipfile.ZipFile(user / "heap.zip", "w") as archive:
        archive.writestr("c.png", PICTURE)
    child = subprocess.Popen(
        [*PREPARE, *words, "heap.zip"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert slow.begun.wait(120)
    child.send_signal(number)
    out, err = child.communicate(timeout=120)
    slow.go.set()
    assert out == "" and "Traceback" not in err
    assert child.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert not (user / "processed" / "dataset.json").exists()
    kept = {path.parent for path in (tmp_path / "home").rglob("about.json")}
    assert all(
        (folder / json.loads((folder / "about.json").read_text())["file"]).read_bytes() == PICTURE for folder in kept
    )
    assert main(["prepare", *words, "heap.zip", "-q"]) == 0
    assert main(["prepare", *words, "heap.zip", "--out", "undisturbed", "-q"]) == 0
    assert snapshot(user / "processed") == snapshot(user / "undisturbed")
    assert not list((tmp_path / "home").rglob("part"))


def kills(user: Path, site: Site, count: int) -> None:
    """kill -9 at random moments of fetching, unpacking and preparing: the next run ends as an undisturbed one."""

    def late(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        request.send_response(200)
        request.send_header("Content-Length", str(len(PICTURE)))
        request.end_headers()
        for start in range(0, len(PICTURE), 16):
            request.wfile.write(PICTURE[start : start + 16])
            time.sleep(0.002)

    with zipfile.ZipFile(user / "heap.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.png", packed(quarters(60 + number, 60), "PNG"))
    words = [*(site.put(f"/{number}.png", late) for number in range(6)), "heap.zip", *WORDS]
    start = time.monotonic()
    assert subprocess.run([*PREPARE, *words, "--out", "undisturbed", "-q"], stdout=subprocess.DEVNULL).returncode == 0
    seconds = time.monotonic() - start
    chance = random.Random(2026)
    for turn in range(count):
        environment = {**os.environ, "DREAMCTL_HOME": str(user / f"home{turn}")}
        command = [*PREPARE, *words, "--out", str(turn), "-q"]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds * chance.uniform(0.2, 1.0))
        child.kill()
        child.wait()
        assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
        assert snapshot(user / str(turn)) == snapshot(user / "undisturbed"), turn
        assert not list((user / f"home{turn}").rglob("part"))


def test_after_kill_9_the_next_run_ends_as_an_undisturbed_one(user: Path, site: Site) -> None:
    kills(user, site, 2)


@pytest.mark.soak
def test_after_fifty_kills(user: Path, site: Site) -> None:
    kills(user, site, 50)
