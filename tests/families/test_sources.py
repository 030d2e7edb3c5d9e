"""Finding a base model: the box, a folder, the hub (as far as it can be told without a network)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamctl import paths
from dreamctl.domain.recipe import Base
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.families import sources
from dreamctl.families.base import load_family
from dreamctl.families.sources import folder_digest, hub_errors, pinned, resolve_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_is_found_digested_and_recognised(tiny: Path) -> None:
    resolved = resolve_base(Base(source=str(tiny)))
    assert (resolved.family, resolved.folder) == ("sd15", tiny)
    assert len(resolved.digest) == 64
    assert resolve_base(Base(source=str(tiny), digest=resolved.digest)).digest == resolved.digest


def test_the_digest_follows_content_and_names_alone(tmp_path: Path, tiny: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    assert folder_digest(copy) == folder_digest(tiny)
    (copy / ".hidden").write_text("not part of the model")
    assert folder_digest(copy) == folder_digest(tiny)
    (copy / "unet" / "config.json").write_text((copy / "unet" / "config.json").read_text() + " ")
    changed = folder_digest(copy)
    assert changed != folder_digest(tiny)
    (copy / "unet" / "config.json").rename(copy / "unet" / "other.json")
    assert folder_digest(copy) not in (changed, folder_digest(tiny))


def test_digests_of_files_are_remembered_but_never_needed(tiny: Path) -> None:
    first = folder_digest(tiny)
    memory = paths.cache_dir() / "digests.json"
    known = json.loads(memory.read_text())
    path = str((tiny / "unet" / "config.json").resolve())
    known[path][2] = "f" * 64
    memory.write_text(json.dumps(known))
    assert folder_digest(tiny) != first  # so the memory was used
    memory.write_text("torn")
    assert folder_digest(tiny) == first


def test_what_is_missing_or_no_model_is_named(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(NotFound, match="nowhere does not exist"):
        resolve_base(Base(source=str(tmp_path / "nowhere")))
    with pytest.raises(InvalidInput, match=r"model_index\.json is missing") as caught:
        resolve_base(Base(source=str(tmp_path)))
    assert caught.value.hint and "unet/" in caught.value.hint
    other = shutil.copytree(tiny, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(InvalidInput, match="holds a PixArtAlphaPipeline"):
        resolve_base(Base(source=str(other)))


def test_an_inpainting_model_is_no_base(tmp_path: Path, tiny: Path) -> None:
    other = shutil.copytree(tiny, tmp_path / "inpainting")
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 9}))
    with pytest.raises(InvalidInput, match="which no family here can train"):
        resolve_base(Base(source=str(other)))


def test_another_digest_than_the_recorded_one_is_refused(tiny: Path) -> None:
    with pytest.raises(InvalidInput, match="has changed since"):
        resolve_base(Base(source=str(tiny), digest="0" * 64))


def test_a_hub_id_that_nobody_has_is_a_providers_error() -> None:
    with pytest.raises(ProviderError, match="owner/name is not in the local cache") as caught:
        resolve_base(Base(source="owner/name"))
    assert caught.value.hint and "--base-model" in caught.value.hint


def test_a_cached_hub_model_works_offline(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants
    import huggingface_hub.file_download

    cache = tmp_path / "hub"
    repository = cache / "models--owner--tiny"
    shutil.copytree(tiny, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(cache), raising=False)
    resolved = resolve_base(Base(source="owner/tiny"))
    assert (resolved.base.revision, resolved.digest, resolved.family, resolved.folder) == (COMMIT, COMMIT, "sd15", None)
    pinned = resolve_base(Base(source="owner/tiny", revision=COMMIT))
    assert pinned.digest == COMMIT


def _response(status: int) -> Any:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/owner/name"))


def test_the_hubs_errors_are_translated() -> None:
    from huggingface_hub import errors

    base = Base(source="owner/name")
    for foreign, ours, words in (
        (errors.GatedRepoError("no", response=_response(403)), CredentialsError, "gated"),
        (errors.RepositoryNotFoundError("no", response=_response(401)), NotFound, "is private"),
        (errors.RevisionNotFoundError("no", response=_response(404)), NotFound, "not a diffusers model"),
        (errors.HfHubHTTPError("500 server error", response=_response(500)), ProviderError, "500 server error"),
        (errors.LocalEntryNotFoundError("offline"), ProviderError, "offline"),
        (httpx.ConnectError("no route"), ProviderError, "no route"),
    ):
        with pytest.raises(ours, match=words), hub_errors(base):
            raise foreign


def test_a_full_disk_is_not_the_networks_fault() -> None:
    with pytest.raises(DreamctlError, match="no space left on device") as raised, hub_errors(Base(source="a/b")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/unet.safetensors")
    assert (raised.value.exit_code, "/cache/unet.safetensors" in raised.value.message) == (1, True)


def test_a_folder_that_is_called_builtin_is_not_the_one_that_ships(tmp_path: Path, tiny: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "builtin")
    base = pinned(resolve_base(Base(source=str(folder))))
    assert resolve_base(base).folder == folder
    folder.rename(tmp_path / "moved")
    with pytest.raises(NotFound, match=f"{folder} does not exist"):
        resolve_base(base)


def test_facts_need_no_torch() -> None:
    code = (
        "import sys; from dreamctl.families.base import load_family; import dreamctl.families.sources; "
        "f = load_family('sd15'); print(f.title, f.reduction); "
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    )
    root = Path(sources.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout == "Stable Diffusion 1.x 8\n"


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(NotFound, match="sd51"):
        load_family("sd51")
