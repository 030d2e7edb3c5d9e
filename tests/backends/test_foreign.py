"""What other trainers make: their archives become a run's model, and nothing in them gets out, in, or opened."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dreamctl.backends.foreign import ADAPTER_FILE, Limits, take_foreign
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import ModelFile, model_digest, unpinned
from dreamctl.errors import DreamctlError
from dreamctl.families import base as families
from dreamctl.files import sha256_file, write_json
from dreamctl.runfolder import EventWriter, RunFolder, now
from tests.fakes import CONCEPT, write_dataset, write_run

SOURCE = "black-forest-labs/FLUX.1-dev"
PICKLE = b"\x80\x02}q\x00."


def safetensors(*names: str, size: int = 8) -> bytes:
    """A file of one-byte tensors with these names."""
    header = {
        name: {"dtype": "U8", "shape": [size], "data_offsets": [size * at, size * (at + 1)]}
        for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\x01" * (size * len(names))


LORA = safetensors("transformer.blocks.0.attn.to_q.lora_A.weight", "transformer.blocks.0.attn.to_q.lora_B.weight")
WHOLE = safetensors("down_blocks.0.resnets.0.conv1.weight")


def tarred(files: Mapping[str, bytes], compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    recipe = Recipe(family="flux", base=Base(source=SOURCE))
    return write_run(tmp_path / "runs", write_dataset(tmp_path / "data", count=1), recipe)


@pytest.fixture
def take(run: RunFolder, tmp_path: Path) -> Callable[[bytes], ModelFile]:
    """Takes what was fetched; returns the description of the model."""

    def take(data: bytes) -> ModelFile:
        file = tmp_path / "result"
        file.write_bytes(data)
        take_foreign(file, run)
        model = run.model_file()
        assert model
        assert model.digest == model_digest(model.files)
        here = sorted(path.relative_to(run.model).as_posix() for path in run.model.rglob("*") if path.is_file())
        assert here == sorted(["model.json", *(weights.file for weights in model.files)])
        assert all(sha256_file(run.model / weights.file) == weights.sha256 for weights in model.files)
        assert not list(run.path.glob(".model*")), "nothing half made is left"
        return model

    return take


Take = Callable[[bytes], ModelFile]


# what trainers make


@pytest.mark.parametrize("compressed", [False, True])
def test_the_flux_trainers_tar_becomes_an_adapter_beside_what_came_along(
    run: RunFolder, take: Take, compressed: bool
) -> None:
    top = "output/flux_train_replicate"
    files = {"lora.safetensors": LORA, "config.yaml": b"job: x\n", "captions/a.txt": b"a photo of sks person\n"}
    model = take(tarred({f"{top}/{name}": data for name, data in files.items()}, compressed))
    assert (run.model / ADAPTER_FILE).read_bytes() == LORA
    assert {weights.file for weights in model.files} == {
        ADAPTER_FILE,
        f"extra/{top}/config.yaml",
        f"extra/{top}/captions/a.txt",
    }
    assert (model.format, model.family, model.base, model.base_digest) == ("peft", "flux", SOURCE, unpinned(SOURCE))
    assert model.concepts == (CONCEPT,)


def test_the_adapters_file_is_the_one_that_families_load() -> None:
    assert ADAPTER_FILE == families.ADAPTER_FILE


def test_the_sdxl_trainers_tar_keeps_the_tokens_that_it_taught(run: RunFolder, take: Take) -> None:
    files = {
        "lora.safetensors": LORA,
        "embeddings.pti": safetensors("clip_l"),
        "special_params.json": b'{"TOK": "<s0>"}',
    }
    model = take(tarred(files))
    assert model.format == "peft"
    assert {path.name for path in (run.model / "extra").iterdir()} == {"embeddings.pti", "special_params.json"}


def test_a_zip_with_checkpoints_gives_the_last_one(run: RunFolder, take: Take) -> None:
    older = safetensors("lora_unet_to_q.lora_down.weight")
    model = take(zipped({"out/me_000000500.safetensors": older, "out/me.safetensors": LORA}))
    assert (run.model / ADAPTER_FILE).read_bytes() == LORA
    assert "extra/out/me_000000500.safetensors" in {weights.file for weights in model.files}


def test_one_file_of_weights_is_enough(run: RunFolder, take: Take) -> None:
    assert take(LORA).format == "peft"
    assert [path.name for path in sorted(run.model.iterdir())] == ["model.json", ADAPTER_FILE]


def test_a_saved_pipeline_becomes_component_folders(run: RunFolder, take: Take) -> None:
    config = b'{"_class_name": "UNet2DConditionModel"}'
    files = {
        "model_index.json": b"{}",
        "unet/config.json": config,
        "unet/diffusion_pytorch_model.safetensors": WHOLE,
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": safetensors("text_model.encoder"),
        "tokenizer/vocab.json": b"{}",
        "args.json": b'{"instance_prompt": "a photo of sks person"}',
    }
    model = take(zipped(files))
    assert model.format == "diffusers"
    assert (run.model / "unet" / "config.json").read_bytes() == config
    assert (run.model / "text_encoder" / "model.safetensors").is_file()
    assert sorted(path.name for path in (run.model / "extra").iterdir()) == [
        "args.json",
        "model_index.json",
        "tokenizer",
    ]


def test_a_pipeline_of_pickles_is_kept_and_opened_by_nobody(run: RunFolder, take: Take) -> None:
    files = {
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": WHOLE,
        "text_encoder/config.json": b"{}",
        "text_encoder/pytorch_model.bin": PICKLE,
    }
    model = take(zipped(files))
    assert model.format == "pickle"
    assert not (run.model / "unet").exists(), "half a model would be none"
    assert (run.model / "extra" / "text_encoder" / "pytorch_model.bin").read_bytes() == PICKLE


def test_a_checkpoint_that_torch_wrote_is_a_pickle(run: RunFolder, take: Take) -> None:
    bomb = b"\x80\x02cos\nsystem\nX\x06\x00\x00\x00touch x\x85R."
    data = zipped({"archive/data.pkl": bomb})
    assert take(data).format == "pickle"
    assert (run.model / "weights.ckpt").read_bytes() == data
    assert take(PICKLE + bytes(600)).format == "pickle"
    assert take(tarred({"me.ckpt": PICKLE})).files[0].file == "me.ckpt"


def test_whole_weights_in_one_file_are_kept_as_a_checkpoint(run: RunFolder, take: Take) -> None:
    model = take(tarred({"unet.safetensors": WHOLE}))
    assert (model.format, model.files[0].file) == ("checkpoint", "unet.safetensors")


def test_steps_and_loss_are_what_was_asked_and_told(run: RunFolder, take: Take) -> None:
    model = take(LORA)
    assert (model.steps, model.final_loss) == (run.recipe().training.steps, 0.0)
    job = RemoteJob(backend="replicate", place="a/b", contract="trainings", began=now(), facts={"steps": 120})
    write_json(run.remote_file, job.plain())
    events = EventWriter(run.events_file)
    events.write("step", step=110, steps=120, loss=0.25, seconds=1)
    events.close()
    model = take(LORA)
    assert (model.steps, model.final_loss) == (120, 0.25)


def test_steps_that_nobody_could_train_are_not_believed(run: RunFolder, take: Take) -> None:
    job = RemoteJob(backend="replicate", place="a/b", contract="trainings", began=now(), facts={"steps": 10**30})
    write_json(run.remote_file, job.plain())
    assert take(LORA).steps == run.recipe().training.steps


def test_what_a_kill_left_is_gone_after_the_next_try(run: RunFolder, take: Take) -> None:
    for name in (".model.0a1b2c3d", ".model.0a1b2c3d.old", ".model.arrived"):
        (run.path / name / "extra").mkdir(parents=True)
    take(LORA)  # which looks for them


# what is refused: the run's folder stays as it was


def link(name: str = "lora.safetensors") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    return buffer.getvalue()


def hard_link() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.safetensors")
        entry.type, entry.linkname = tarfile.LNKTYPE, "../../run.json"
        archive.addfile(entry)
    return buffer.getvalue()


def zip_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("a.safetensors")
        entry.create_system, entry.external_attr = 3, 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def long_header() -> bytes:
    """A header that says that a name of 100 MB follows, and is compressed to nothing."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 100 << 20
    return gzip.compress(entry.tobuf() + bytes(1 << 20))


def nameless() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lora.safetensors", LORA)
        archive.filelist[0].filename = ""
    return buffer.getvalue()


def header_that_says(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + bytes(8)


DAMAGED = bytearray(tarred({"lora.safetensors": LORA}, compressed=True))
DAMAGED[30] ^= 0xFF


REFUSED = [
    (tarred({"../../evil.safetensors": LORA}), "would be written elsewhere"),
    (tarred({"/tmp/evil.safetensors": LORA}), "would be written elsewhere"),
    (tarred({"a/../../evil.safetensors": LORA}), "would be written elsewhere"),
    (zipped({"..\\evil.safetensors": LORA}), "would be written elsewhere"),
    (zipped({"C:/evil.safetensors": LORA}), "would be written elsewhere"),
    (tarred({"a\nb.safetensors": LORA}), "has an odd name"),
    (link(), "is a link"),
    (hard_link(), "is a link"),
    (zip_link(), "is a link"),
    (tarred({"a.safetensors": LORA, "./a.safetensors": LORA}), "twice"),
    (tarred({"a": b"x", "a/b.safetensors": LORA}), "as a file and as a folder"),
    (long_header(), "far too long"),
    (tarred({"lora.safetensors": LORA})[:700], "damaged"),
    (zipped({"lora.safetensors": LORA})[:-30], "damaged"),
    (bytes(DAMAGED), "damaged"),
    (gzip.compress(b"no tar"), "damaged"),
    (tarred({"lora.safetensors": LORA[:-3]}), "lora.safetensors is damaged"),
    (tarred({"lora.safetensors": b"not found"}), "lora.safetensors is no safetensors file"),
    (tarred({"readme.txt": b"none", "captions/a.txt": b"x"}), "holds no weights: captions/a.txt, readme.txt"),
    (nameless(), "damaged"),
    (zipped({"a/" * 900 + "lora.safetensors": LORA}), "too deep"),
    (zipped({"a" * 300 + ".safetensors": LORA}), "too long"),
    (zipped({"ü.safetensors": LORA}).replace("ü".encode(), b"\xff\xff"), "damaged"),
    (zipped({"lora.safetensors": header_that_says(b'{"w":' + b"[" * 200_000)}), "lora.safetensors is no safetensors"),
    (header_that_says(b'{"lora":{"data_offsets":[0,8,9]}}'), "weights.safetensors is no safetensors file"),
    (header_that_says(b'{"lora":{"data_offsets":[0,1e999]}}'), "weights.safetensors is no safetensors file"),
    (b"<html>not found</html>", "holds no weights"),
    (b"", "holds no weights"),
]


# the archives' bytes differ from process to process, so they name no test
@pytest.mark.parametrize(("data", "message"), REFUSED, ids=[f"{at} {case[1]}" for at, case in enumerate(REFUSED)])
def test_what_is_hostile_damaged_or_useless_is_refused(
    run: RunFolder, take: Take, tmp_path: Path, data: bytes, message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DreamctlError, match=message):
        take(data)
    after = sorted(path for path in tmp_path.rglob("*") if path.name != "result")
    assert after == before


def test_a_refused_archive_leaves_the_model_that_was_there(run: RunFolder, take: Take) -> None:
    take(LORA)
    with pytest.raises(DreamctlError):
        take(tarred({"../evil": b"x"}))
    assert (run.model / ADAPTER_FILE).read_bytes() == LORA


@pytest.mark.parametrize("packed", [tarred, zipped])
def test_a_bomb_ends_when_too_much_came_out(run: RunFolder, tmp_path: Path, packed: Callable[..., bytes]) -> None:
    file = tmp_path / "result"
    zeros = packed({"zeros.safetensors": bytes(4 << 20)})
    file.write_bytes(zeros if packed is zipped else gzip.compress(zeros))
    with pytest.raises(DreamctlError, match="far more than its size"):
        take_foreign(file, run, Limits(free=1 << 20))
    file.write_bytes(packed({str(number): b"" for number in range(6)}))
    with pytest.raises(DreamctlError, match="far too many entries"):
        take_foreign(file, run, Limits(entries=5))
    assert not run.model.exists()


def test_a_full_disk_is_a_full_disk(run: RunFolder, small_disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "result"
    file.write_bytes(safetensors("lora_A", size=1 << 20))
    crowded = RunFolder(small_disk / run.id)
    crowded.path.mkdir()
    for name in ("run.json", "recipe.toml", "concept.json"):
        (crowded.path / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(DreamctlError) as raised:
        take_foreign(file, crowded)
    assert raised.value.code == "disk_full"


def test_what_was_taken_draws_on_the_built_in_model(tmp_path: Path) -> None:
    """An adapter as another's trainer may have written it, on a base whose digest nobody told."""
    from dreamctl.backends import foreign
    from dreamctl.families.adapters import save_adapters
    from dreamctl.generation.pipeline import open_pipeline

    base = Base(source="builtin")
    recipe = Recipe(base=base)
    opened: Any = open_pipeline(base, device="cpu")
    opened.model.prepare(recipe.method)
    save_adapters(opened.model.pipeline(), opened.model.taught(recipe.method), tmp_path / "made")
    data = (tmp_path / "made" / ADAPTER_FILE).read_bytes()
    run = write_run(tmp_path / "runs", write_dataset(tmp_path / "data", count=1), recipe)
    file = tmp_path / "result"
    file.write_bytes(tarred({"output/lora.safetensors": data}))
    foreign.take_foreign(file, run)
    (picture,) = open_pipeline(base, run.model, device="cpu").make(
        "a photo of sks person", steps=1, width=64, height=64
    )
    assert picture.size == (64, 64)
