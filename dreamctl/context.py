"""The only place that wires settings, registry and adapters together and hands them to workflows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dreamctl import credentials, paths, plugins
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import InvalidInput
from dreamctl.reporter import Reporter
from dreamctl.settings import Settings, load_settings

if TYPE_CHECKING:
    from dreamctl.backends.base import Backend
    from dreamctl.captioners.base import Captioner
    from dreamctl.registry import Registry
    from dreamctl.storage.base import Access, Storage
    from dreamctl.trainers.base import Trainer


@dataclass(frozen=True)
class Context:
    """What a workflow works with."""

    settings: Settings
    reporter: Reporter
    project: Path

    @classmethod
    def open(cls, profile: str | None, flags: Mapping[str, Any], reporter: Reporter) -> Context:
        """Read the settings of this user, project and line."""
        project = paths.project_dir()
        return cls(load_settings(project, profile=profile, flags=flags), reporter, project)

    @cached_property
    def registry(self) -> Registry:
        """The registry, opened and migrated on first use."""
        from dreamctl.registry import Registry

        return Registry.open(paths.registry_file())

    @property
    def runs(self) -> Path:
        return paths.runs_dir()

    def reach_hub(self) -> None:
        """Let the hub's library know where the hub is and who asks; to be called before anything loads it."""
        os.environ.update(credentials.hub_environment(self.settings.hub_endpoint, self.project))

    def backend(self, name: str | None = None) -> Backend:
        from dreamctl.backends.base import Support

        support = Support(self.settings, self.project, self.reporter, self.storage)
        return cast("Backend", plugins.load("backends", name or self.settings.backend)(support))

    def captioner(self, name: str, options: CaptionOptions) -> Captioner:
        """The captioner with what line and settings say.

        Raises InvalidInput for an option that it does not take or a value that it cannot work with.
        """
        kind = plugins.load("captioners", name)
        options.check(name, kind.takes)
        settings = self.settings  # flags for these are settings too; a captioner without a use for them ignores them
        token = credentials.token(kind.account, self.project) if kind.account else None
        given = replace(options, device=settings.device, token=token)
        if kind.account == "huggingface":
            given = replace(given, endpoint=settings.hub_endpoint)
        elif kind.account == "openai":
            model = options.model or settings.caption_model
            given = replace(given, endpoint=settings.caption_endpoint, model=model)
        return cast("Captioner", kind(given))

    def trainer(self, name: str) -> Trainer:
        return cast("Trainer", plugins.load("trainers", name))

    def storage(self, url: str | None = None, access: Access | None = None) -> Storage:
        """The storage that a URL such as s3://bucket/folder names; the setting `storage` where none is given.

        `access`: how it was reached another time, where that is known; else as the settings say.
        """
        wanted = self.storage_url(url)
        if not wanted:
            raise InvalidInput(
                "no storage is configured",
                field="storage",
                hint="name one, as in --to s3://bucket/folder, or run `dreamctl config set storage URL`",
            )
        scheme, separator, _ = wanted.partition("://")
        if not separator:
            raise InvalidInput(
                f"storage {wanted!r} is not a URL", field="storage", hint="for example s3://bucket/folder"
            )
        os.environ.update(credentials.cloud_environment(self.project))
        return cast("Storage", plugins.load("storages", scheme)(wanted, access or self.access()))

    def storage_url(self, url: str | None = None) -> str:
        """The URL of the storage that is meant, written as every other time; "" where none is."""
        from dreamctl.storage.base import normal_url

        return normal_url(url or self.settings.storage or "")

    def access(self, recorded: Access | None = None) -> Access:
        """How the settings say that storages are reached; or as is `recorded`, but for what the line says."""
        from dreamctl.storage.base import Access

        values = {name: getattr(self.settings, name) for name in Access.__dataclass_fields__}
        if values["gcs_credentials"]:  # it is remembered, and used in other folders
            values["gcs_credentials"] = str(Path(values["gcs_credentials"]).expanduser().absolute())
        if recorded is None:
            return Access(**values)
        said = {name: value for name, value in values.items() if self.settings.origin(name).startswith("--")}
        return replace(recorded, **said)
