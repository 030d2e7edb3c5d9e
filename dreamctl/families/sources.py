"""Where a base model comes from: the box, a diffusers folder or the hub; pinned, digested, its family recognised.

Works without torch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dreamctl import hub, paths
from dreamctl.builtin import MODEL_DIR
from dreamctl.domain.base import digest
from dreamctl.domain.recipe import Base
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.families.base import Family, ResolvedBase, family_names, load_family
from dreamctl.files import locked, read_json, sha256_file, write_json

INDEX = "model_index.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_base(base: Base) -> ResolvedBase:
    """Find the base model, and check it against `base.digest` if that is given.

    Raises NotFound, InvalidInput (not a diffusers model, or another one), CredentialsError, ProviderError.
    """
    folder = MODEL_DIR if base.source == "builtin" else _place(base)
    here = base.source == "builtin" or folder.exists() or not hub.HUB_ID.fullmatch(base.source)
    resolved = _resolve_folder(base, folder) if here else _resolve_hub(base)
    if base.digest and base.digest != resolved.digest:
        raise InvalidInput(
            f"{base.source} has changed since this was written: {resolved.digest[:12]}, not {base.digest[:12]}",
            field="base.digest",
            hint="restore the model's files, or train again with --again",
        )
    return resolved


def pinned(resolved: ResolvedBase) -> Base:
    """The base as a run folder names it: with its digest, and without the place of a folder on this computer.

    The place is remembered beside the registry, for `resolve_base` to find by the digest.
    """
    base = resolved.base.model_copy(update={"digest": resolved.digest})
    if resolved.folder is None or base.source == "builtin":
        return base
    folder = resolved.folder.absolute()
    with locked(paths.locks_dir() / "bases.lock", "remembering a base model"):
        write_json(_places(), {**_known_places(), resolved.digest: str(folder)})
    name = folder.name if folder.name != "builtin" else "builtin-folder"  # `builtin` means the one that ships
    return base.model_copy(update={"source": name})


def _place(base: Base) -> Path:
    """The folder of a base: where its digest was last seen, unless its source is a folder itself."""
    known = _known_places().get(base.digest or "")
    here = Path(base.source).expanduser()
    return Path(known) if known and (Path(known).is_dir() or not here.exists()) else here


def _places() -> Path:
    return paths.data_dir() / "bases.json"


def _known_places() -> dict[str, str]:
    if not _places().exists():
        return {}
    known: dict[str, str] = read_json(_places())
    return known


def on_hub(source: str) -> bool:
    """Whether a base of that name is asked for at the hub, and not found here."""
    return source != "builtin" and not Path(source).expanduser().exists() and bool(hub.HUB_ID.fullmatch(source))


def fetch(resolved: ResolvedBase) -> Path:
    """The folder that holds the base's files, downloaded first where they are not here. Imports diffusers."""
    if resolved.folder:
        return resolved.folder
    from diffusers import DiffusionPipeline

    base = resolved.base
    with hub_errors(base):
        folder = DiffusionPipeline.download(
            base.source, revision=base.revision, variant=base.variant, use_safetensors=True
        )
    return Path(folder)


def _resolve_folder(base: Base, folder: Path) -> ResolvedBase:
    if not folder.exists():
        if base.source == "builtin":
            raise NotFound(f"{folder} does not exist: this installation has no built-in model", field="base.source")
        raise NotFound(
            f"{folder} does not exist",
            field="base.source",
            hint="a base model is `builtin`, a diffusers folder, or a hub id such as owner/name",
        )
    if not (folder / INDEX).is_file():
        raise InvalidInput(
            f"{folder} is not a diffusers folder: {INDEX} is missing",
            field="base.source",
            hint=f"expected a folder with {INDEX} and unet/, vae/, text_encoder/, tokenizer/, scheduler/ in it",
        )
    index = read_json(folder / INDEX)
    family = _recognise(index, lambda name: read_json(folder / name / "config.json"), str(folder))
    return ResolvedBase(base=base, digest=folder_digest(folder), family=family.name, folder=folder)


def _recognise(index: Any, config_of: Any, where: str) -> Family:
    kind = index.get("_class_name", "") if isinstance(index, Mapping) else ""
    for name in family_names():
        family = load_family(name)
        if kind in family.pipelines and family.recognises(index, config_of(family.denoiser)):
            return family
    titles = ", ".join(load_family(name).title for name in family_names())
    raise InvalidInput(
        f"{where} holds a {kind or 'model of an unknown kind'}, which no family here can train",
        field="base.source",
        hint=f"known: {titles}",
    )


def folder_digest(folder: Path) -> str:
    """One digest over the names and contents of all files in a folder, hidden ones apart.

    Files' digests are remembered by size and time of change, since a model may hold many gigabytes.
    """
    known = _remembered()
    fresh: dict[str, list[Any]] = {}
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        stat, key = path.stat(), str(path.resolve())
        entry = known.get(key)
        if not entry or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
            entry = fresh[key] = [stat.st_size, stat.st_mtime_ns, sha256_file(path)]
        files.append((name, entry[2]))
    if fresh:
        with contextlib.suppress(DreamctlError):  # a cache that cannot be written only costs time
            write_json(_memory(), _remembered() | fresh)
    return digest(files)


def _memory() -> Path:
    return paths.cache_dir() / "digests.json"


def _remembered() -> dict[str, list[Any]]:
    try:
        known = read_json(_memory())
    except DreamctlError:
        return {}
    return known if isinstance(known, dict) else {}


def _resolve_hub(base: Base) -> ResolvedBase:
    commit = _commit(base)
    pinned = base.model_copy(update={"revision": commit})

    def config(name: str) -> Any:
        return read_json(_hub_file(pinned, f"{name}/config.json"))

    family = _recognise(read_json(_hub_file(pinned, INDEX)), config, base.source)
    return ResolvedBase(base=pinned, digest=commit, family=family.name, folder=None)


def _commit(base: Base) -> str:
    """The commit that the revision means now: by itself, by the hub, or (offline) by the local cache."""
    if base.revision and _COMMIT.fullmatch(base.revision):
        return base.revision
    try:
        with hub_errors(base):
            from huggingface_hub import HfApi

            return str(HfApi().model_info(base.source, revision=base.revision, timeout=20).sha)
    except ProviderError:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base.source, INDEX, revision=base.revision)
        if not isinstance(cached, str):
            raise
        return Path(cached).parent.name


def _hub_file(base: Base, name: str) -> Path:
    with hub_errors(base):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(base.source, name, revision=base.revision))


def hub_errors(base: Base) -> AbstractContextManager[None]:
    """Translate the hub's errors about a base model: gated, missing, unreachable."""
    return hub.hub_errors(
        base.source,
        base.revision,
        field="base.source",
        hint="check the network, or pass a diffusers folder with --base-model",
        what="a diffusers model",
    )
