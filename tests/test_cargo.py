"""What a trainer elsewhere made comes in whole and looked at, or not at all; a kill leaves nothing that stays."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamctl import cargo
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.run import Weights, model_digest
from dreamctl.errors import DreamctlError
from dreamctl.runfolder import RunFolder
from tests.clouds.robot import outcome, weights
from tests.fakes import write_dataset, write_run

Files = dict[str, bytes]
LORA = "model/pytorch_lora_weights.safetensors"
EVENT = {"v": 1, "seq": 1, "attempt": 1, "time": "2026-11-27T10:00:00.000Z", "type": "note", "message": "x"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose outcome is awaited."""
    run = write_run(tmp_path / "runs", write_dataset(tmp_path / "data", count=1), Recipe(base=Base(source="builtin")))
    run.samples.mkdir()
    (run.samples / "before.png").write_bytes(b"old")
    run.log_file.write_text("before\n")
    return run


@pytest.fixture
def made(run: RunFolder, tmp_path: Path) -> Files:
    """The files of a good outcome."""
    errand = {
        "run": run.record().plain(), "recipe": run.recipe().plain(), "concept": run.concept().plain()
    }  # fmt: skip
    with zipfile.ZipFile(outcome(errand, tmp_path / "worker")) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {**files, "samples/1.png": b"new"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "outcome.zip"


def packed(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def here(run: RunFolder) -> Files:
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_model_samples_and_log_come_in_and_the_events_are_told(run: RunFolder, made: Files, archive: Path) -> None:
    before = here(run)
    archive.write_bytes(packed(made))
    events = cargo.take_outcome(archive, run)
    assert [event["type"] for event in events] == ["state", "step", "step", "step", "state"]
    assert events[1]["seq"] == 2
    del before["samples/before.png"], made["events.jsonl"]
    assert here(run) == {**before, **made}
    cargo.take_outcome(archive, run)
    assert here(run) == {**before, **made}


# what is refused


def described(made: Files, /, **changes: Any) -> None:
    """Change the model's description; the digests fit the files that it lists."""
    model = json.loads(made["model/model.json"]) | changes
    for item in model["files"]:
        data = made[f"model/{item['file']}"]
        item["sha256"], item["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    model["digest"] = changes.get("digest") or model_digest([Weights(**item) for item in model["files"]])
    made["model/model.json"] = json.dumps(model).encode()


def change(**changes: Any) -> Callable[[Files], None]:
    return lambda files: described(files, **changes)


def only_text(files: Files) -> None:
    del files[LORA]
    listed = [item for item in json.loads(files["model/model.json"])["files"] if item["file"] == "mark.txt"]
    described(files, files=listed)


def called_pickle(files: Files) -> None:
    only_text(files)
    described(files, format="pickle")


def twice(key: str) -> Callable[[Files], None]:
    return lambda files: described(files, **{key: json.loads(files["model/model.json"])[key] * 2})


def shouted(files: Files) -> None:
    (concept,) = json.loads(files["model/model.json"])["concepts"]
    described(files, concepts=[concept, {**concept, "identifier": concept["identifier"].upper()}])


def lying_weights(files: Files) -> None:
    files[LORA] = weights().replace(b"[0, 8]", b"[0,88]")
    described(files)


def moved(old: str, new: str) -> Callable[[Files], None]:
    return lambda files: files.update({new: files.pop(old)})


def put(name: str, data: bytes = b"x") -> Callable[[Files], None]:
    return lambda files: files.update({name: data})


REFUSED: list[tuple[str, Callable[[Files], None], str]] = [
    ("no files", change(files=[]), "holds no weights"),
    ("only text", only_text, "holds no weights"),
    ("text that calls itself a pickle", called_pickle, "holds no weights"),
    ("an unlisted pickle", put("model/evil.ckpt", b"\x80\x04."), r"holds evil\.ckpt, which model\.json does not list"),
    ("an unlisted file", put("model/extra/a.txt"), "does not list"),
    ("a file twice", twice("files"), "lists a file twice"),
    ("a concept twice", twice("concepts"), "a concept twice"),
    ("a concept twice in capitals", shouted, "a concept twice"),
    ("steps without end", change(steps=10**30), "steps or a loss"),
    ("steps below none", change(steps=-1), "steps or a loss"),
    ("no loss", change(final_loss=float("nan")), "steps or a loss"),
    ("an endless loss", change(final_loss=float("inf")), "steps or a loss"),
    ("escape sequences", change(base="\x1b[2J"), "cannot be shown"),
    ("half a character", change(format="\ud800"), "cannot be shown"),
    ("a very long text", change(family="x" * 9999), "cannot be shown"),
    ("another digest", change(digest="\x1b[31m"), "the model's digest is not that of its files"),
    ("lying weights", lying_weights, "pytorch_lora_weights.safetensors is damaged"),
    ("a deep description", put("model/model.json", b'{"a":' * 200_000), "not valid JSON"),
    ("a list", put("model/model.json", b"[]"), r"model\.json"),
    ("no text", put("model/model.json", b"\xff\xfe"), "not valid JSON"),
    ("a number without end", put("model/model.json", b"9" * 9999), "not valid JSON"),
    ("no description", moved("model/model.json", "model/other.json"), r"model\.json is missing"),
    ("events in a folder", moved("events.jsonl", "events.jsonl/x"), r"events\.jsonl is a folder"),
    ("a log in a folder", moved("train.log", "train.log/x"), r"train\.log is a folder"),
    ("samples in a file", moved("samples/1.png", "samples"), "samples is a file"),
    ("deep events", put("events.jsonl", b'{"v":' + b"[" * 200_000 + b"\n"), "events cannot be read"),
    ("something else", put("run.json", b"{}"), "belongs to no outcome"),
    ("a way out", put("model/../../x"), "leaves its folder"),
    ("deep folders", put("model/" + "a/" * 900 + "x"), "too deep"),
    ("a long name", put("model/" + "x" * 300), "too long"),
    ("a file and a folder", lambda files: files.update({"model/a": b"", "model/a/b": b""}), "a name twice"),
]


@pytest.mark.parametrize(("hostile", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_right_is_one_sentence_and_changes_nothing(
    run: RunFolder, made: Files, archive: Path, hostile: Callable[[Files], None], message: str
) -> None:
    before = here(run)
    hostile(made)
    archive.write_bytes(packed(made))
    with pytest.raises(DreamctlError, match=message) as raised:
        cargo.take_outcome(archive, run)
    assert here(run) == before
    assert [path.name for path in run.path.glob(".*")] == []
    assert "\x1b" not in raised.value.message
    assert str(run.path.parent) not in raised.value.message, "it becomes an event, and may be shared"


def overlapping(files: Files) -> bytes:
    """Twenty entries that are one and the same file of a megabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("samples/0", bytes(1 << 20))
        (first,) = archive.infolist()
        for number in range(1, 20):
            other = zipfile.ZipInfo(f"samples/{number}")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "external_attr"):
                setattr(other, name, getattr(first, name))
            archive.filelist.append(other)
    return buffer.getvalue()


def cut(files: Files) -> bytes:
    return packed(files)[:-30]


def flipped(files: Files) -> bytes:
    return packed(files).replace(b"trained\n", b"trAined\n")


def other_letters(files: Files) -> bytes:
    """A name that says it is UTF-8, and is not."""
    return packed({**files, "samples/ü": b""}).replace("ü".encode(), b"\xff\xff")


def nameless(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.log", b"x")
        archive.filelist[0].filename = ""
    return buffer.getvalue()


def compressed(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.log", bytes(1 << 20))
    return buffer.getvalue()


def doubled(files: Files) -> bytes:
    buffer = io.BytesIO(packed(files))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("train.log", b"another")
    return buffer.getvalue()


@pytest.mark.parametrize("damaged", [overlapping, cut, flipped, other_letters, nameless, compressed, doubled])
def test_a_damaged_archive_is_one_sentence_too(
    run: RunFolder, made: Files, archive: Path, damaged: Callable[[Files], bytes]
) -> None:
    before = here(run)
    archive.write_bytes(damaged(made))
    with pytest.raises(DreamctlError, match=r"the archive|a file is called"):
        cargo.take_outcome(archive, run)
    assert here(run) == before


def test_any_byte_that_is_another_is_noticed_or_does_no_harm(run: RunFolder, archive: Path) -> None:
    good = packed({"samples/1.png": b"picture", "train.log": b"x"})
    for place in range(len(good)):
        archive.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        with pytest.raises(DreamctlError):  # there is no model in it
            cargo.take_outcome(archive, run)
    assert [path.name for path in run.path.glob(".*")] == []


def test_a_foreign_trainers_pickle_may_come_back_from_the_storage(run: RunFolder, made: Files, archive: Path) -> None:
    made["model/weights.ckpt"] = b"\x80\x02}q\x00."
    del made[LORA], made["model/mark.txt"]
    described(made, format="pickle", files=[{"file": "weights.ckpt", "sha256": "", "bytes": 0}])
    archive.write_bytes(packed(made))
    cargo.take_outcome(archive, run)
    model = run.model_file()
    assert model
    assert model.format == "pickle"


# kills


def test_what_a_kill_left_is_gone_after_the_next_try(
    run: RunFolder, made: Files, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every step of the way in turn, without the chance to tidy up."""
    archive.write_bytes(packed(made))
    replace, rmtree = Path.replace, shutil.rmtree
    steps = 0
    while run.model_file() is None:
        steps += 1
        left = [steps]

        def killed(step: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def stepped(*given: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return step(*given, **more)

            return stepped

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", killed(replace))
            patched.setattr(shutil, "rmtree", killed(rmtree))
            try:
                cargo.take_outcome(archive, run)
            except KeyboardInterrupt:
                assert run.model_file() is None or not list(run.path.glob(".*")), "the model comes last"
    assert steps > 3
    cargo.take_outcome(archive, run)
    assert [path.name for path in run.path.glob(".*")] == []
    assert here(run)[LORA] == made[LORA]
