"""Settings: which layer wins, where each value came from, and what every wrong key or value is told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from pydantic import ValidationError

from dreamctl import paths
from dreamctl.domain.run import Target
from dreamctl.errors import InvalidInput
from dreamctl.profiles import shipped_profiles
from dreamctl.settings import KEYS, USER_ONLY, NamedProfile, Settings, load_settings, table_problems

LAYERS = ("flag", "environment", "dotenv", "named profile", "project file", "default profile")


def write_user_file(text: str) -> Path:
    file = paths.user_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def put(layer: str, value: int, project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Set `processes` in one layer; returns flags."""
    if layer == "environment":
        monkeypatch.setenv("DREAMCTL_PROCESSES", str(value))
    elif layer == "dotenv":
        (project / ".env").write_text(f"DREAMCTL_PROCESSES={value}\n")
    elif layer == "project file":
        (project / "dreamctl.toml").write_text(f"processes = {value}\n")
    return {"processes": value} if layer == "flag" else {}


@pytest.mark.parametrize("present", [LAYERS[start:] for start in range(len(LAYERS))], ids=lambda layers: layers[0])
def test_the_highest_layer_wins_and_is_named(
    user: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...]
) -> None:
    flags = {}
    for number, layer in enumerate(LAYERS, start=1):
        if layer in present:
            flags.update(put(layer, number, user, monkeypatch))
    named, usual = LAYERS.index("named profile") + 1, LAYERS.index("default profile") + 1
    file = write_user_file(
        f'default_profile = "usual"\n[profiles.usual]\nprocesses = {usual}\n[profiles.named]\nprocesses = {named}\n'
    )
    settings = load_settings(user, "named" if "named profile" in present else None, flags)
    expected = {
        "flag": "--processes",
        "environment": "DREAMCTL_PROCESSES",
        "dotenv": ".env",
        "named profile": f"profile 'named' in {file}",
        "project file": "dreamctl.toml",
        "default profile": f"profile 'usual' in {file}",
    }
    assert settings.processes == LAYERS.index(present[0]) + 1
    assert settings.origin("processes") == expected[present[0]]


def test_layers_are_laid_over_each_other_key_by_key(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / "dreamctl.toml").write_text('base_model = "builtin"\nprocesses = 2\n')
    monkeypatch.setenv("DREAMCTL_PROCESSES", "3")
    settings = load_settings(user, None, {"target": "meta"})
    assert (settings.base_model, settings.processes, settings.target) == ("builtin", 3, Target.meta)
    assert [settings.origin(key) for key in ("base_model", "processes", "target", "backend")] == [
        "dreamctl.toml",
        "DREAMCTL_PROCESSES",
        "--target",
        "default",
    ]


def test_without_any_layer_everything_is_default(user: Path) -> None:
    settings = load_settings(user)
    assert settings == Settings()
    assert {settings.origin(key) for key in KEYS} == {"default"}


def test_a_flag_that_was_not_given_and_an_empty_variable_set_nothing(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCTL_BACKEND", "")
    settings = load_settings(user, None, {"backend": None})
    assert settings.backend == "local"
    assert settings.origin("backend") == "default"


def test_settings_cannot_be_changed_afterwards(user: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(user).backend = "other"  # type: ignore[misc]


# unknown keys


def test_an_unknown_key_in_the_project_file_names_file_key_and_nearest(user: Path) -> None:
    (user / "dreamctl.toml").write_text('bakcend = "local"\nbase_modle = "builtin"\n')
    with pytest.raises(InvalidInput) as raised:
        load_settings(user)
    assert str(user / "dreamctl.toml") in raised.value.message
    assert "'bakcend' (did you mean 'backend'?)" in raised.value.message
    assert "'base_modle' (did you mean 'base_model'?)" in raised.value.message, "every problem at once"


def test_an_unknown_key_in_a_profile_names_the_profile(user: Path) -> None:
    write_user_file("[profiles.work]\nmaxcost = 1\n")
    with pytest.raises(InvalidInput, match=r"profile 'work' in .*config\.toml: unknown setting 'maxcost'"):
        load_settings(user, "work")


def test_a_setting_outside_a_profile_in_the_user_file_is_explained(user: Path) -> None:
    write_user_file('backend = "local"\n')
    with pytest.raises(InvalidInput, match=r"config\.toml: unknown key 'backend'.*\[profiles\.NAME\]"):
        load_settings(user)


def test_an_unknown_variable_names_the_nearest(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_BAKEND", "local")
    with pytest.raises(InvalidInput, match=r"DREAMCTL_BAKEND \(did you mean 'DREAMCTL_BACKEND'"):
        load_settings(user)


def test_variables_that_are_no_settings_are_left_alone(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_TEST_ANYTHING", "1")
    monkeypatch.setenv("DREAMCTLX", "1")
    assert load_settings(user) == Settings()


def test_an_unknown_variable_in_dotenv_names_the_file(user: Path) -> None:
    (user / ".env").write_text("DREAMCTL_BAKEND=local\nOTHER_PROGRAM=1\n")
    with pytest.raises(InvalidInput, match=r"\.env: unknown variable DREAMCTL_BAKEND"):
        load_settings(user)


# wrong values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("processes", "many"),
        ("processes", "0"),
        ("max_cost", "-1"),
        ("max_cost", "nan"),
        ("target", "privat"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("storage", "bucket"),
        ("storage", "s3://me:secretword@bucket/folder"),
        ("storage", "s3://bucket/folder?X-Amz-Signature=secretword"),
        ("hub_endpoint", "http://mirror.example"),
        ("hub_endpoint", "https://me:secretword@mirror.example"),
        ("hub_endpoint", "mirror.example"),
        ("caption_endpoint", "http://models.example/v1"),
        ("caption_endpoint", "http://8.8.8.8/v1"),
        ("caption_endpoint", "http://me:secretword@192.168.1.5/v1"),
    ],
)
def test_a_wrong_value_names_variable_key_and_way_out(
    user: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv(f"DREAMCTL_{key.upper()}", value)
    with pytest.raises(InvalidInput, match=f"DREAMCTL_{key.upper()}: {key} = ") as raised:
        load_settings(user)
    assert raised.value.field == key
    assert raised.value.hint == f"`dreamctl config explain {key}` says what it may be"
    assert "secretword" not in raised.value.message


def test_truth_is_not_money(user: Path) -> None:
    write_user_file("[profiles.work]\nmax_cost = true\n")
    with pytest.raises(InvalidInput, match="max_cost = True: must not be true or false"):
        load_settings(user, "work")


def test_a_wrong_value_in_a_file_names_the_file(user: Path) -> None:
    (user / "dreamctl.toml").write_text('processes = "x"\n')
    with pytest.raises(InvalidInput, match=r"dreamctl\.toml: processes = 'x'"):
        load_settings(user)


@pytest.mark.parametrize("name", ["dreamctl.toml", "config.toml"])
def test_a_file_that_is_not_toml_is_named_with_its_line(user: Path, name: str) -> None:
    file = user / name if name == "dreamctl.toml" else write_user_file("")
    file.write_text("backend = \n")
    with pytest.raises(InvalidInput, match=rf"{name} is not valid TOML.*line 1"):
        load_settings(user)


def test_hub_endpoint_may_be_this_computer_without_https(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_HUB_ENDPOINT", "http://127.0.0.1:8080/")
    assert load_settings(user).hub_endpoint == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://192.168.1.5:1234/v1/", "http://192.168.1.5:1234/v1"),
        ("https://models.example/openai/v1", "https://models.example/openai/v1"),
    ],
)
def test_caption_endpoint_may_be_of_the_private_network_without_https(user: Path, value: str, meant: str) -> None:
    assert load_settings(user, flags={"caption_endpoint": value}).caption_endpoint == meant


# what a project may not say


@pytest.mark.parametrize(
    ("file", "key"),
    list(itertools.product(("dreamctl.toml", ".env"), ("hub_endpoint", "caption_endpoint", "max_cost"))),
)
def test_a_project_may_not_send_tokens_elsewhere_nor_spend(user: Path, file: str, key: str) -> None:
    value = "5" if key == "max_cost" else "https://evil.example"
    line = f"{key} = {value!r}\n" if file == "dreamctl.toml" else f"DREAMCTL_{key.upper()}={value}\n"
    (user / file).write_text(line)
    with pytest.raises(InvalidInput, match=rf"'{key}' may not be set by a project, since .* config set {key} VALUE"):
        load_settings(user)


def test_the_user_may_set_what_a_project_may_not(user: Path) -> None:
    write_user_file('[profiles.work]\nmax_cost = 5\nhub_endpoint = "https://mirror.example"\n')
    settings = load_settings(user, "work")
    assert (settings.max_cost, settings.hub_endpoint) == (5.0, "https://mirror.example")
    assert set(USER_ONLY) <= set(KEYS)


def test_dotenv_does_not_fill_in_the_users_variables(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    (user / ".env").write_text("DREAMCTL_STORAGE=s3://bucket/${AWS_SECRET_ACCESS_KEY}\n")
    assert load_settings(user).storage == "s3://bucket/${AWS_SECRET_ACCESS_KEY}"


def test_a_recipe_file_that_a_project_names_lies_beside_the_project_file(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user / "deep").mkdir()
    monkeypatch.chdir(user / "deep")
    (user / "dreamctl.toml").write_text('recipe = "mine.toml"\nbase_model = "./weights"\n')
    settings = load_settings(paths.project_dir())
    assert (settings.recipe, settings.base_model) == (str(user / "mine.toml"), str(user / "weights"))
    (user / "dreamctl.toml").write_text('recipe = "sd15"\nbase_model = "owner/name"\n')
    settings = load_settings(paths.project_dir())
    assert (settings.recipe, settings.base_model) == ("sd15", "owner/name")


# profiles


@pytest.mark.parametrize("by", ["--profile", "DREAMCTL_PROFILE", ".env"])
def test_a_profile_that_does_not_exist_is_answered_with_the_nearest(
    user: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    write_user_file("[profiles.work]\nprocesses = 2\n")
    if by == "DREAMCTL_PROFILE":
        monkeypatch.setenv(by, "wrok")
    elif by == ".env":
        (user / ".env").write_text("DREAMCTL_PROFILE=wrok\n")
    with pytest.raises(InvalidInput, match=f"{by}.*: no profile named 'wrok'") as raised:
        load_settings(user, "wrok" if by == "--profile" else None)
    assert raised.value.hint == "did you mean 'work'?"


def test_the_line_beats_the_variable_in_choosing_a_profile(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_user_file("[profiles.one]\nprocesses = 1\n[profiles.two]\nprocesses = 2\n")
    monkeypatch.setenv("DREAMCTL_PROFILE", "one")
    assert load_settings(user, "two").processes == 2
    assert load_settings(user).processes == 1


def test_a_profile_of_the_users_hides_a_shipped_one(user: Path) -> None:
    file = write_user_file("[profiles.local]\nprocesses = 2\n")
    settings = load_settings(user, "local")
    assert settings.processes == 2
    assert settings.origin("processes") == f"profile 'local' in {file}"


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: profile.name)
def test_every_shipped_profile_is_right_and_says_for_whom_it_is(user: Path, profile: object) -> None:
    shipped = {item.name: item for item in shipped_profiles()}
    found = next(item for item in shipped.values() if item == profile)
    assert table_problems(NamedProfile(found)) == []
    assert found.file.read_text().startswith("# ")
    settings = load_settings(user, found.name)
    assert all(settings.origin(key) == found.origin for key in found.values)


def test_every_setting_documents_itself() -> None:
    assert [key for key in KEYS if not Settings.model_fields[key].description] == []
