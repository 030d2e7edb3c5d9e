"""Settings in files: written without harming comments, checked before writing, and explained from their fields."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamctl import paths, recipes
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.files import read_toml
from dreamctl.settings import KEYS, USER_ONLY, ProjectFile, load_settings, table_problems
from dreamctl.workflows.config import init_project, list_profiles, locations, set_value, show
from dreamctl.workflows.explain import explain, knobs
from dreamctl.workflows.validate import validate

COMMENTED = """\
# our project
base_model = "builtin"  # the small one

# how many
processes = 1
"""


def write_user_file(text: str) -> Path:
    file = paths.user_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# init


def test_init_explains_every_setting_and_sets_none(user: Path) -> None:
    file = init_project(user)
    assert read_toml(file) == {}
    text = file.read_text()
    assert all(f"# {key} = " in text for key in KEYS if key not in USER_ONLY)
    assert not any(f"# {key} = " in text for key in USER_ONLY)


def test_every_line_that_init_offers_is_right_when_uncommented(user: Path) -> None:
    lines = init_project(user).read_text().splitlines()
    keys = [line.removeprefix("# ") for line in lines if line.removeprefix("# ").partition(" = ")[0] in KEYS]
    file = user / "offered.toml"
    file.write_text("\n".join(keys))
    assert table_problems(ProjectFile(file, read_toml(file))) == []


def test_init_overwrites_nothing(user: Path) -> None:
    file = user / "dreamctl.toml"
    file.write_text(COMMENTED)
    with pytest.raises(InvalidInput, match=r"dreamctl\.toml is there already"):
        init_project(user)
    assert file.read_text() == COMMENTED


# set


def test_set_in_the_project_keeps_every_comment(user: Path) -> None:
    file = user / "dreamctl.toml"
    file.write_text(COMMENTED)
    written = set_value("processes", "2", user, None, in_project=True)
    assert (written.value, written.file, written.hidden_by) == (2, file, None)
    assert file.read_text() == COMMENTED.replace("processes = 1", "processes = 2")
    set_value("device", "cpu", user, None, in_project=True)
    assert file.read_text().startswith(COMMENTED.replace("processes = 1", "processes = 2"))
    assert load_settings(user).device == "cpu"


def test_the_first_set_makes_a_default_profile_that_counts(user: Path) -> None:
    written = set_value("max_cost", "2.5", user, None, in_project=False)
    assert written.place == f"profile 'default' in {paths.user_file()}"
    assert load_settings(user).max_cost == 2.5
    set_value("processes", "2", user, None, in_project=False)
    assert read_toml(paths.user_file()) == {
        "default_profile": "default",
        "profiles": {"default": {"max_cost": 2.5, "processes": 2}},
    }


def test_set_with_a_profile_writes_there_and_makes_it(user: Path) -> None:
    file = write_user_file("# mine\n[profiles.home]\nprocesses = 1 # one\n")
    set_value("processes", "4", user, "work", in_project=False)
    assert file.read_text().startswith("# mine\n[profiles.home]\nprocesses = 1 # one\n")
    assert load_settings(user, "work").processes == 4
    assert "default_profile" not in read_toml(file), "naming a profile does not make it the default"


def test_set_goes_where_it_counts_when_a_variable_names_the_profile(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_user_file('default_profile = "home"\n[profiles.home]\n[profiles.work]\n')
    monkeypatch.setenv("DREAMCTL_PROFILE", "work")
    set_value("processes", "4", user, None, in_project=False)
    assert read_toml(paths.user_file())["profiles"] == {"home": {}, "work": {"processes": 4}}


def test_a_shipped_profile_is_continued_not_hidden(user: Path) -> None:
    set_value("processes", "2", user, "local", in_project=False)
    assert read_toml(paths.user_file())["profiles"]["local"] == {"backend": "local", "processes": 2}


def test_set_says_what_still_stands_above(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_PROCESSES", "8")
    assert set_value("processes", "2", user, None, in_project=True).hidden_by == "DREAMCTL_PROCESSES"


@pytest.mark.parametrize(
    "before",
    ["[profiles.home]\nprocesses = 1\n", "profiles.home.processes = 1\n", "[profiles]\nhome = {processes = 1}\n", ""],
)
def test_set_finds_its_place_however_the_file_is_written(user: Path, before: str) -> None:
    file = write_user_file(before)
    set_value("device", "cpu", user, "home", in_project=False)
    set_value("dataset", "mine", user, None, in_project=False)
    table = read_toml(file)
    assert table["profiles"]["home"] == {**({"processes": 1} if before else {}), "device": "cpu"}
    assert (table["default_profile"], table["profiles"]["default"]) == ("default", {"dataset": "mine"})


def test_a_wrong_value_can_be_set_right_while_something_else_is_wrong(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCTL_PROSESSES", "2")
    (user / "dreamctl.toml").write_text('processes = "x"\n')
    set_value("processes", "2", user, None, in_project=True)
    assert read_toml(user / "dreamctl.toml") == {"processes": 2}


@pytest.mark.parametrize(
    ("key", "value", "in_project", "said"),
    [
        ("prosesses", "2", False, "unknown setting 'prosesses'"),
        ("processes", "two", False, "processes = 'two'"),
        ("backend", "lokal", True, "backend = 'lokal' is not known .did you mean 'local'"),
        ("max_cost", "5", True, "'max_cost' may not be set by a project"),
        ("hub_endpoint", "http://mirror.example", False, "must be an https:// URL"),
    ],
)
def test_a_wrong_set_writes_nothing(user: Path, key: str, value: str, in_project: bool, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        set_value(key, value, user, None, in_project)
    assert not (user / "dreamctl.toml").exists()
    assert not paths.user_file().exists()


def test_a_file_with_another_mistake_is_not_written_over(user: Path) -> None:
    file = user / "dreamctl.toml"
    file.write_text("bakend = 1\n")
    with pytest.raises(InvalidInput, match="unknown setting 'bakend'"):
        set_value("processes", "2", user, None, in_project=True)
    assert file.read_text() == "bakend = 1\n"


def test_programs_that_set_at_once_lose_nothing(user: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dreamctl.workflows.config import set_value\n"
        "set_value(*sys.argv[1:], Path.cwd(), None, in_project=False)"
    )
    wanted = {"processes": "3", "device": "cpu", "dataset": "mine", "pictures": "out"}
    running = [
        subprocess.Popen([sys.executable, "-c", program, key, value], env=dict(os.environ), cwd=user)
        for key, value in wanted.items()
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    settings = load_settings(user)
    assert {key: str(getattr(settings, key)) for key in wanted} == wanted


# show, profiles, path


def test_show_tells_every_key_with_its_origin(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_STORAGE", "s3://bucket/x")
    rows = {row.key: row for row in show(user, None)}
    assert tuple(rows) == KEYS
    assert rows["storage"].origin == "DREAMCTL_STORAGE"
    assert rows["target"].value == "private"


def test_profiles_tell_which_is_active_and_why(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_user_file('default_profile = "home"\n[profiles.home]\n[profiles.work]\n')

    def active(profile: str | None = None) -> list[tuple[str, str]]:
        return [(row.name, row.active_by) for row in list_profiles(user, profile) if row.active_by]

    assert {row.name for row in list_profiles(user, None)} == {"local", "home", "work"}
    assert active() == [("home", "default_profile")]
    assert active("local") == [("local", "--profile")]
    monkeypatch.setenv("DREAMCTL_PROFILE", "work")
    assert active() == [("work", "DREAMCTL_PROFILE")]


def test_locations_lie_in_the_home_and_the_project(user: Path) -> None:
    found = locations(user)
    assert found["project_file"] == user / "dreamctl.toml"
    assert {name for name, place in found.items() if place.is_relative_to(user.parent / "home")} == {
        "user_file", "credentials", "registry", "runs", "cache",
    }  # fmt: skip


# explain


def test_every_setting_and_every_knob_is_explained() -> None:
    found = knobs()
    assert {knob.key for knob in found if knob.belongs_to == "setting"} == set(KEYS)
    silent = [knob.key for knob in found if not knob.description and knob.key != "schema"]
    assert silent == []
    assert all(knob.type != "value" for knob in found), [knob for knob in found if knob.type == "value"]


def test_what_is_explained_is_what_counts() -> None:
    recipe = Recipe.parse({"base": {"source": "builtin"}}, "x").model_dump(mode="json", by_alias=True)
    for knob in knobs():
        if knob.belongs_to == "recipe" and knob.key != "base.source":
            value = recipe
            for part in knob.key.split("."):
                value = value[part]
            assert knob.default == value, knob.key


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("max_cost", ["max_cost"]),
        ("max-cost", ["max_cost"]),
        ("training.steps", ["training.steps"]),
        ("steps", ["training.steps", "sampling.steps"]),
        ("checkpoints", ["checkpoints.every", "checkpoints.keep", "checkpoints.keep_when_done"]),
    ],
)
def test_a_key_is_found_by_its_name_its_table_or_its_end(key: str, found: list[str]) -> None:
    assert [knob.key for knob in explain(key)] == found


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"no setting and no recipe knob 'training\.stps'") as raised:
        explain("training.stps")
    assert raised.value.hint == "did you mean 'training.steps'?"


def test_allowed_values_come_from_the_field() -> None:
    allowed = {knob.key: knob.allowed for knob in knobs()}
    assert allowed["target"] == "pretrained, private, meta, private_meta"
    assert allowed["processes"] == "≥ 1"
    assert allowed["training.precision"] == "fp32, bf16, fp16"
    assert set(recipes.names()) <= set(allowed["recipe"].split(", "))


# validate


def test_validate_names_every_problem_of_every_file(user: Path) -> None:
    recipe = user / "mine.toml"
    recipe.write_text('extends = "builtin"\n[training]\nstep = 1\nbatch_size = 0\n[priro]\nweight = 1\n')
    project = user / "dreamctl.toml"
    project.write_text('bakend = "local"\nprocesses = 0\nmax_cost = 1\ncaptioner = "bultin"\n')
    mine = write_user_file(
        'default_profile = "wrok"\nbackend = 1\n[profiles.work]\nprocesses = "x"\nbackend = "lokal"\n'
    )
    found = {checked.file: checked for checked in validate([recipe, project, mine], user)}
    assert [found[file].kind for file in (recipe, project, mine)] == ["recipe", "project file", "user file"]
    expected = {
        recipe: ("'training.step'", "training.batch_size = 0", "'priro'"),
        project: ("'bakend'", "processes = 0", "'max_cost'", "captioner = 'bultin'"),
        mine: ("named 'wrok'", "'backend'", "processes = 'x'", "backend = 'lokal'"),
    }
    for file, words in expected.items():
        for word in words:
            assert any(word in problem for problem in found[file].problems), (word, found[file].problems)
        assert all(str(file) in problem for problem in found[file].problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = \n", "is not valid TOML"),
        ('extends = "nothing"\n', "no recipe named 'nothing'"),
        ('extends = "mine.toml"\n', "a recipe extends itself"),
        ('family = "sd51"\n[base]\nsource = "builtin"\n', "family = 'sd51' is not known"),
        ("[training]\nsteps = 5\n", "base"),
    ],
)
def test_a_broken_recipe_is_a_problem_not_a_crash(user: Path, text: str, said: str) -> None:
    file = user / "mine.toml"
    file.write_text(text)
    (checked,) = validate([file], user)
    assert said in checked.problems[0]


def test_without_files_those_in_use_are_checked(user: Path) -> None:
    assert validate([], user) == []
    (user / "dreamctl.toml").write_text("processes = 1\n")
    (user / ".env").write_text("DREAMCTL_PROCESSES=x\n")
    write_user_file("")
    found = {checked.file.name: checked.problems for checked in validate([], user)}
    assert set(found) == {"dreamctl.toml", ".env", "config.toml"}
    assert [name for name, problems in found.items() if problems] == [".env"]


def test_everything_that_ships_is_valid(user: Path) -> None:
    files = sorted(paths.configs_dir().glob("*/*.toml"))
    assert len(files) >= 6
    assert [checked for checked in validate(files, user) if checked.problems] == []


def test_a_file_that_is_not_there_is_not_found(user: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.toml does not exist"):
        validate([Path("nowhere.toml")], user)
