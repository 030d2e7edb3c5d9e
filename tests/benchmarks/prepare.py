"""`prepare` beside naive Pillow, and beside libvips where it is installed; and how much memory a picture costs.

200 photographs of 12 megapixels (20 different ones, ten names each, JPEG 4:2:0 of 2.7 MB, as phones write them), every
check on, all in one run. CPU seconds are those of the process and its children, so what a core does is compared
whatever else the machine does.
"""

from __future__ import annotations

import io
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageChops, ImageFilter, ImageOps, ImageStat

from dreamctl.fitting import Rules, fit
from tests.benchmarks.rows import BUILD, Row
from tests.pictures import noise

PHOTOGRAPHS, DIFFERENT = 200, 20
WIDE, HIGH = 4000, 3000
SIDE = 512
TURNS = 3
FEW, MANY = 2_000, 12_000  # small pictures, for the memory of each

NAIVE = """
import sys
from pathlib import Path
from PIL import Image, ImageOps
out = Path(sys.argv[2])
for path in sorted(Path(sys.argv[1]).glob("*.jpg")):
    picture = ImageOps.pad(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), (512, 512), color="white")
    picture.save(out / path.name, quality=95)
"""

# Not getrusage's figure: a process inherits it from the one that started it.
LEADER = """
import re, sys
from pathlib import Path
from dreamctl.cli.app import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """Of one command and its children: seconds of the clock and of CPU."""

    wall: float
    cpu: float

    @classmethod
    def none(cls) -> Cost:
        return cls(math.inf, math.inf)

    def least(self, other: Cost) -> Cost:
        return Cost(min(self.wall, other.wall), min(self.cpu, other.cpu))


def run() -> list[Row]:
    """Ratios to naive Pillow and vipsthumbnail, the closeness of the pictures, and bytes for a picture."""
    photographs = _photographs()
    with tempfile.TemporaryDirectory() as scratch:
        naive, ours = Cost.none(), Cost.none()
        for turn in range(TURNS):  # one after the other, since a machine that others use is not always as fast
            line = [sys.executable, "-c", NAIVE, str(photographs), _folder(scratch, f"naive{turn}")]
            naive = naive.least(_cost(line))
            line = [*_DREAMCTL, str(photographs), "--size", str(SIDE), "--out", _folder(scratch, f"ours{turn}")]
            ours = ours.least(_cost(line, scratch))
        rows = [
            Row("naive Pillow's CPU beside ours", naive.cpu / ours.cpu, 1, "at least", 3, "×"),
            Row("pictures a second", PHOTOGRAPHS / ours.wall, rate := PHOTOGRAPHS / naive.wall, "at least", rate),
            Row(
                "nearness to full LANCZOS", min(_decibels(path) for path in _some(photographs)), 0, "at least", 46, "dB"
            ),
        ]
        if vips := shutil.which("vipsthumbnail"):
            target = f"{_folder(scratch, 'vips')}/%s.jpg[Q=95]"
            files = [str(path) for path in sorted(photographs.iterdir())]
            other = _cost([vips, "--size", f"{SIDE}x{SIDE}", "-o", target, *files])
            rows.append(Row("speed beside vipsthumbnail", other.wall / ours.wall, 1, "at least", 0.8, "×"))
        few, many = (_memory(scratch, count) for count in (FEW, MANY))
        each = (many - few) / (MANY - FEW)
        rows.append(Row("memory for each small picture", each, 0, "at most", 1024, "bytes"))
    return rows


_DREAMCTL = [sys.executable, "-m", "dreamctl", "prepare", "-q"]


def _folder(scratch: str, name: str) -> str:
    path = Path(scratch) / name
    path.mkdir()
    return str(path)


def _cost(command: Sequence[str], home: str | None = None) -> Cost:
    environment = {**os.environ, **({"DREAMCTL_HOME": f"{home}/home"} if home else {})}
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{command[0]} ended with {status}")
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime)


def _memory(scratch: str, count: int) -> int:
    """The largest size in bytes of the process that leads, for so many small pictures."""
    command = [sys.executable, "-c", LEADER, "prepare", str(_small(scratch, count)), "--size", "64", "--no-sheet", "-q"]
    done = subprocess.run(
        [*command, "--out", _folder(scratch, f"out{count}")],
        env={**os.environ, "DREAMCTL_HOME": f"{scratch}/home"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) * 1024


def _photographs() -> Path:
    """Detail at every scale, noise and EXIF of all orientations; made once."""
    folder = BUILD / "prepare" / "photographs"
    done = folder.with_suffix(".done")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number in range(DIFFERENT):
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = number % 8 + 1
            first = folder / f"{number:03}.jpg"
            _photograph(number).save(first, quality=92, exif=exif)
            for more in range(number + DIFFERENT, PHOTOGRAPHS, DIFFERENT):
                (folder / f"{more:03}.jpg").hardlink_to(first)
        done.touch()
    return folder


def _photograph(seed: int) -> Image.Image:
    rng = random.Random(seed)
    picture = Image.new("RGB", (WIDE, HIGH), "grey")
    for side, share in ((6, 0.5), (24, 0.4), (96, 0.3), (384, 0.2)):  # the finer the weaker, as in nature
        layer = Image.frombytes("RGB", (side * 4 // 3, side), rng.randbytes(side * 4 // 3 * side * 3))
        picture = Image.blend(picture, layer.resize((WIDE, HIGH), Image.Resampling.BICUBIC), share)
    grain = noise(WIDE, HIGH, 4, seed).convert("RGB")
    return ImageChops.add(picture, grain, scale=1, offset=-128).filter(ImageFilter.GaussianBlur(0.7))


def _some(folder: Path) -> list[Path]:
    return [folder / f"{number:03}.jpg" for number in range(4)]


def _decibels(path: Path) -> float:
    """The peak signal-to-noise ratio of ours beside the whole picture, turned and scaled with LANCZOS."""
    data = path.read_bytes()
    ours = Image.open(io.BytesIO(fit(data, Rules(SIDE, format="png")).data)).convert("RGB")
    with Image.open(path) as image:
        best = ImageOps.pad(
            ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS, color="white"
        )
    inner = ImageOps.pad(Image.new("L", ours.size, 255), ours.size)
    error = ImageStat.Stat(ImageChops.difference(ours, best), inner).rms
    mean = sum(value * value for value in error) / len(error)
    return 10 * math.log10(255 * 255 / mean) if mean else 99.0


def _small(scratch: str, count: int) -> Path:
    folder = Path(_folder(scratch, f"small{count}"))
    rng = random.Random(count)
    for number in range(count):
        Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize((64, 64), Image.Resampling.NEAREST).save(
            folder / f"{number:06}.jpg"
        )
    return folder
