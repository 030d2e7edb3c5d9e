"""Settings: one frozen value read from layers, the highest first; each value knows its layer.

Flags > `DREAMCTL_…` > the project's `.env` > named profile > `dreamctl.toml` > the user's default profile > defaults.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dreamctl import paths
from dreamctl.domain.concept import Kind
from dreamctl.domain.quantities import LONGEST_LINK, seconds
from dreamctl.domain.run import Target
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.files import read_toml
from dreamctl.http import local_network, loopback, redact
from dreamctl.profiles import Profile, chosen_profile, default_profile, read_dotenv
from dreamctl.recipes import is_path

PREFIX = "DREAMCTL_"
_NOT_SETTINGS = ("DREAMCTL_HOME", "DREAMCTL_PROFILE", "DREAMCTL_TEST_")

# A cloned project is other people's text. What could send a token elsewhere or spend money is the user's alone.
USER_ONLY: Mapping[str, str] = {
    "hub_endpoint": "it receives your hub token",
    "caption_endpoint": "it receives your pictures, and a token where there is one",
    "max_cost": "it is your consent to spend money",
    "s3_endpoint": "it receives your pictures and requests signed with your keys",
    "s3_profile": "it chooses whose keys are used",
    "gcs_credentials": "it chooses whose keys are used",
    "runpod_url": "it receives your RunPod token",
    "replicate_url": "it receives your Replicate token",
    "webhook": "it is told where your models are",
    "price_per_hour": "it decides how far your consent to spend money reaches",
}


def _safe_endpoint(value: str) -> str:
    url = urlsplit(value)
    if url.username or url.password:
        raise ValueError("must hold no user name and no password")
    if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and loopback(url.hostname))):
        raise ValueError("must be an https:// URL (http:// only for this computer), since it receives a token")
    return value.rstrip("/")


def _captioning_endpoint(value: str) -> str:
    """As above, but a model server of the private network is usually without https: it gets pictures and no token."""
    url = urlsplit(value)
    plain = url.scheme == "http" and not (url.username or url.password) and local_network(url.hostname or "")
    safe = value.rstrip("/") if plain else _safe_endpoint(value)
    return safe if url.path.strip("/") else f"{safe}/v1"


def _store_endpoint(value: str) -> str:
    """As a captioning endpoint: a store of the private network, by address or bare name, is usually without https."""
    url = urlsplit(value)
    host = url.hostname or ""
    plain = url.scheme == "http" and not (url.username or url.password)
    safe = value.rstrip("/") if plain and (local_network(host) or (host and "." not in host)) else _safe_endpoint(value)
    if url.query or url.fragment:
        raise ValueError("must hold no query")
    return safe


def _public_base(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("https", "http") or not url.hostname or url.username or url.password or url.query:
        raise ValueError("must be an http(s) URL without user and query, such as https://pictures.example.com")
    return value.rstrip("/")


def _webhook_url(value: str) -> str:
    url = urlsplit(value)
    if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and local_network(url.hostname))):
        raise ValueError("must be an https:// URL")
    return value


def _duration(value: str) -> str:
    if seconds(value) > LONGEST_LINK:
        raise ValueError("must be at most 7d: no signature lives longer")
    return value


def _storage_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not (scheme and separator and rest):
        raise ValueError("must be a URL such as file:///srv/datasets or s3://bucket/folder")
    if redact(value) != value:
        raise ValueError("must hold no password, key or signature: `dreamctl auth` and the environment keep those")
    return value


class Settings(BaseSettings):
    """Where and with what account dreamctl works. Never how to train: that is the recipe's."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    backend: str = Field("local", min_length=1, description="where trainings run")
    base_model: str | None = Field(
        None, description="the model that trainings start from: `builtin`, a hub id (owner/name) or a diffusers folder"
    )
    recipe: str | None = Field(None, description="how to train: a recipe's name, or a recipe file")
    identifier: str | None = Field(
        None, min_length=1, description="the identifier that this project teaches, where the line names none"
    )
    category: str | None = Field(
        None, min_length=1, description="what its pictures are of, where the line says nothing"
    )
    kind: Kind | None = Field(None, description="whether it teaches a subject or a style, where the line says nothing")
    target: Target = Field(Target.private, description="which model `train` teaches and `generate` draws with")
    captioner: str | None = Field(None, description="who writes captions")
    caption_endpoint: Annotated[str, AfterValidator(_captioning_endpoint)] | None = Field(
        None,
        description="URL of the OpenAI-compatible endpoint that captioner `openai` asks; without it OpenAI's own",
    )
    caption_model: str | None = Field(None, description="the model that `caption_endpoint` is asked for")
    storage: Annotated[str, AfterValidator(_storage_url)] | None = Field(
        None,
        description="the URL that `upload` writes to: s3://bucket/folder, gs://bucket/folder, file:///srv/datasets",
    )
    expires: Annotated[str, AfterValidator(_duration)] = Field(
        "3d", description="how long the URLs that `upload` prints work: 90s, 30m, 12h, 7d (the longest)"
    )
    s3_endpoint: Annotated[str, AfterValidator(_store_endpoint)] | None = Field(
        None, description="URL of a service that speaks S3 (R2, B2, MinIO, Ceph, Wasabi); without it Amazon's own"
    )
    s3_region: str | None = Field(None, min_length=1, description="the region of the buckets, such as eu-central-1")
    s3_profile: str | None = Field(
        None, min_length=1, description="the profile of `~/.aws/config` and `~/.aws/credentials` whose keys are used"
    )
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="whether buckets stand in the path or in the host's name; auto: the path beside Amazon"
    )
    s3_checksums: Literal["auto", "when_supported", "when_required"] = Field(
        "auto",
        description="when checksum headers are sent; auto: beside Amazon only where required, as others fail",
    )
    gcs_credentials: str | None = Field(
        None, min_length=1, description="the file of the Google account that is used, such as a service account's key"
    )
    public_url: Annotated[str, AfterValidator(_public_base)] | None = Field(
        None, description="URL below which everybody reads the storage's objects, where it has one beside its own"
    )
    max_cost: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="consent to spend up to so many US dollars on one command"
    )
    max_hours: Annotated[float, Field(gt=0, le=168, allow_inf_nan=False)] | None = Field(
        None, description="the most hours that a training may run at a provider; a week is the most that RunPod allows"
    )
    price_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None,
        description="what the provider's GPU costs in US dollars an hour: estimates and `max_cost` are made with it",
    )
    runs: Annotated[str, AfterValidator(_storage_url)] | None = Field(
        None, description="the URL below which remote runs are kept for other computers too: s3://bucket/runs"
    )
    webhook: Annotated[str, AfterValidator(_webhook_url)] | None = Field(
        None, description="URL that the provider is to tell of a training's end"
    )
    runpod_endpoint: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="the id of the RunPod endpoint that trains"
    )
    runpod_url: Annotated[str, AfterValidator(_safe_endpoint)] = Field(
        "https://api.runpod.ai/v2", description="URL below which RunPod's endpoints are; it receives the token"
    )
    runpod_schema: Literal["dreamctl", "dream-booth-v1"] = Field(
        "dreamctl", description="what the endpoint's worker speaks: dreamctl's own worker, or RunPod's dream-booth-v1"
    )
    replicate_trainer: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+(:[0-9a-f]{8,64})?$",
        description="the trainer at Replicate: owner/name, or owner/name:version",
    )
    replicate_destination: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="the model at Replicate that trainings write to: owner/name; without it one by the identifier",
    )
    replicate_hardware: str = Field(
        "gpu-t4", min_length=1, description="what a destination that dreamctl makes at Replicate runs on"
    )
    replicate_url: Annotated[str, AfterValidator(_safe_endpoint)] = Field(
        "https://api.replicate.com/v1", description="URL of Replicate's API; it receives the token"
    )
    replicate_dialect: Literal["trainings", "dreambooth"] = Field(
        "trainings", description="Replicate's API of today, or its DreamBooth API of 2022 for a server that speaks it"
    )
    replicate_template: str | None = Field(
        None, min_length=1, description="dialect dreambooth: version of the template that the model is built with"
    )
    processes: int = Field(1, ge=1, description="processes of a local training, which share its batches (one a GPU)")
    device: str | None = Field(
        None,
        pattern=r"^(cuda(:\d+)?|mps|cpu)$",
        description="what local work computes on: cuda, cuda:1, mps or cpu; without it the best there is",
    )
    dataset: str = Field(paths.DATASET_FOLDER, min_length=1, description="the project's folder of prepared pictures")
    pictures: str = Field(
        paths.PICTURES_FOLDER, min_length=1, description="the project's folder that `generate` writes to"
    )
    hub_endpoint: Annotated[str, AfterValidator(_safe_endpoint)] | None = Field(
        None, description="URL of the model hub or of a mirror; it receives the hub token"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would read `max_cost = true` as one dollar
            raise ValueError("must not be true or false")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _layers.get() or (init_settings,)

    @classmethod
    def from_layers(cls, layers: tuple[Layer, ...]) -> Self:
        """The settings that `layers`, the highest first, give. Raises InvalidInput naming layer, key and value."""
        problems = [problem for layer in layers for problem in layer.key_problems()]
        if problems:
            raise InvalidInput("; ".join(problems))
        origins = {key: layer for layer in reversed(layers) for key in layer.values}
        token = _layers.set(layers)
        try:
            settings = cls()
        except ValidationError as error:
            found = [(str(item["loc"][0]), item) for item in error.errors()]
            sentences = (f"{origins[key].where(key)}: {value_problem(item)}" for key, item in found)
            raise InvalidInput("; ".join(sentences), field=found[0][0], hint=explain_hint(found[0][0])) from None
        finally:
            _layers.reset(token)
        settings._origins.update({key: layer.origin(key) for key, layer in origins.items()})
        return settings

    def origin(self, key: str) -> str:
        """Where the value of `key` comes from: a flag, a variable, a file, or "default"."""
        return self._origins.get(key, "default")


KEYS = tuple(Settings.model_fields)


class Layer(PydanticBaseSettingsSource):
    """One place that settings come from."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(Settings)
        self.values = dict(values)
        self.place = place

    def origin(self, key: str) -> str:
        """The short name of where `key` was found."""
        return self.place

    def where(self, key: str) -> str:
        """The same for an error: the whole path of a file."""
        return self.origin(key)

    def key_problems(self) -> Iterator[str]:
        """A sentence for each key that may not stand here."""
        for key in self.values:
            if key not in KEYS:
                yield f"{self.where(key)}: unknown setting {key!r} ({did_you_mean(key, KEYS)})"

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.values


class Flags(Layer):
    """What the command line says."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        super().__init__({key: value for key, value in flags.items() if value is not None}, "the command line")

    def origin(self, key: str) -> str:
        return "--" + key.replace("_", "-")


class Environment(Layer):
    """`DREAMCTL_<KEY>` variables; an empty one counts as not set."""

    def __init__(self, variables: Mapping[str, str | None]) -> None:
        found = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in variables.items()
            if name.startswith(PREFIX) and not name.startswith(_NOT_SETTINGS) and value
        }
        super().__init__(found, "the environment")

    def origin(self, key: str) -> str:
        return PREFIX + key.upper()

    def key_problems(self) -> Iterator[str]:
        names = [PREFIX + key.upper() for key in KEYS]
        for name in (PREFIX + key.upper() for key in self.values if key not in KEYS):
            yield f"{self.place}: unknown variable {name} ({did_you_mean(name, names)})"


class Dotenv(Environment):
    """The same variables in the project's `.env`."""

    def __init__(self, file: Path) -> None:
        super().__init__(read_dotenv(file))
        self.place = str(file)

    def origin(self, key: str) -> str:
        return ".env"

    def where(self, key: str) -> str:
        return self.place

    def key_problems(self) -> Iterator[str]:
        yield from super().key_problems()
        yield from _user_only_problems(self)


class ProjectFile(Layer):
    """The top-level keys of `dreamctl.toml`."""

    def __init__(self, file: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values, str(file))

    def origin(self, key: str) -> str:
        return paths.PROJECT_FILE

    def where(self, key: str) -> str:
        return self.place

    def key_problems(self) -> Iterator[str]:
        yield from super().key_problems()
        yield from _user_only_problems(self)

    def __call__(self) -> dict[str, Any]:
        """A relative path in the file starts beside the file, wherever in the project the command is given."""
        values = dict(self.values)
        for key, names_a_file in _FILES.items():
            if isinstance(values.get(key), str) and names_a_file(values[key]):
                values[key] = str(Path(self.place).parent / values[key])
        return values


class NamedProfile(Layer):
    """The profile that a flag or a variable names, or the user's default one."""

    def __init__(self, profile: Profile | None) -> None:
        super().__init__(profile.values if profile else {}, profile.origin if profile else "")


_FILES: Mapping[str, Callable[[str], bool]] = {
    "recipe": is_path,
    "base_model": lambda value: value.startswith(("./", "../")),  # owner/name is the hub's
}
"""Settings that may name a file, and whether a value does."""


def load_settings(project: Path, profile: str | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this line, user and project.

    Raises InvalidInput that names file (or variable, or flag), key and value, and the nearest right key.
    """
    named = chosen_profile(project, profile)
    file = project / paths.PROJECT_FILE
    layers = (
        Flags(flags or {}),
        Environment(os.environ),
        Dotenv(project / ".env"),
        NamedProfile(named),
        ProjectFile(file, read_toml(file) if file.exists() else {}),
        NamedProfile(None if named else default_profile()),
    )
    return Settings.from_layers(layers)


def table_problems(layer: Layer) -> list[str]:
    """Everything that is wrong in one layer taken alone: keys and values."""
    found = list(layer.key_problems())
    try:
        Settings(**{key: value for key, value in layer.values.items() if key in KEYS})
    except ValidationError as error:
        found += [f"{layer.where(str(item['loc'][0]))}: {value_problem(item)}" for item in error.errors()]
    return found


def value_problem(item: Mapping[str, Any]) -> str:
    """One pydantic error as a phrase that names field and value; a value that looks like a secret is not shown."""
    reason = str(item["msg"]).removeprefix("Value error, ")
    return f"{item['loc'][0]} = {redact(repr(item['input']))}: {reason[:1].lower()}{reason[1:]}"


def explain_hint(key: str) -> str:
    return f"`dreamctl config explain {key}` says what it may be"


def _user_only_problems(layer: Layer) -> Iterator[str]:
    for key in layer.values:
        if key in USER_ONLY:
            yield (
                f"{layer.where(key)}: {key!r} may not be set by a project, since {USER_ONLY[key]}: set it for yourself "
                f"with `dreamctl config set {key} VALUE`, {PREFIX}{key.upper()} or --{key.replace('_', '-')}"
            )


_layers: ContextVar[tuple[PydanticBaseSettingsSource, ...] | None] = ContextVar("layers", default=None)
