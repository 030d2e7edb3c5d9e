"""Recipes on disk: the shipped ones are right, `extends` merges, and each mistake names its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamctl import paths, recipes
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, NotFound

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_is_right_and_says_for_whom_it_is_and_what_it_trades(name: str) -> None:
    recipe = recipes.resolve(name)
    comment = recipes.find(name).read_text().split("schema = 1")[0]
    assert Recipe.parse(recipe.plain(), name) == recipe, "complete: nothing is lost when it is written down"
    assert 20 < len(recipes.purpose(recipes.find(name))) < 110
    assert "It trades " in comment


def test_the_recipes_that_the_program_needs_ship() -> None:
    assert set(recipes.names()) >= {"sd15", "sd15-dreambooth", "sd15-style", "builtin", "builtin-lora"}


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.resolve(name).method.name == "lora"])
def test_an_adapter_keeps_alpha_and_rank_together(name: str) -> None:
    method = recipes.resolve(name).method
    assert method.alpha == method.rank, "the learning rate is meant for a scale of one"


def test_presets_inherit_and_change() -> None:
    base, full, style = (recipes.resolve(name) for name in ("sd15", "sd15-dreambooth", "sd15-style"))
    assert base.base == full.base == style.base
    assert (base.method.name, full.method.name, full.method.train_text_encoder) == ("lora", "full", True)
    assert full.training.gradient_checkpointing and not base.training.gradient_checkpointing
    assert (style.training.offset_noise, style.prior.weight, style.prior.pictures) == (0.1, 0.0, 0)


# extends


def test_tables_merge_and_lists_replace(user: Path) -> None:
    (user / "parent.toml").write_text(
        '[base]\nsource = "builtin"\n[training]\nsteps = 5\nbatch_size = 2\n[prior]\nprompts = ["a", "b"]\n'
    )
    (user / "child.toml").write_text('extends = "parent.toml"\n[training]\nsteps = 7\n[prior]\nprompts = ["c"]\n')
    recipe = recipes.resolve("child.toml")
    assert (recipe.training.steps, recipe.training.batch_size, recipe.prior.prompts) == (7, 2, ("c",))


def test_a_file_may_extend_a_shipped_recipe_and_a_neighbour_of_its_own(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = user / "mine"
    folder.mkdir()
    (folder / "first.toml").write_text('extends = "builtin"\n[training]\nsteps = 11\n')
    (folder / "second.toml").write_text('extends = "./first.toml"\n[training]\nbatch_size = 1\n')
    monkeypatch.chdir(folder.parent.parent)
    recipe = recipes.resolve(str(folder / "second.toml"))
    assert (recipe.base.source, recipe.training.steps, recipe.training.batch_size) == ("builtin", 11, 1)


@pytest.mark.parametrize("chain", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_is_an_error_that_shows_it(user: Path, chain: list[str]) -> None:
    for name, below in zip(chain, chain[1:] + chain[:1], strict=True):
        (user / f"{name}.toml").write_text(f'extends = "{below}.toml"\n')
    with pytest.raises(InvalidInput, match=r"a recipe extends itself: a\.toml -> .*a\.toml"):
        recipes.load_table("a.toml")


def test_a_missing_parent_names_the_file_that_asks_for_it(user: Path) -> None:
    (user / "child.toml").write_text('extends = "sd51"\n')
    with pytest.raises(NotFound, match=r"child\.toml: extends = 'sd51': no recipe named 'sd51'") as raised:
        recipes.load_table("child.toml")
    assert raised.value.hint == "did you mean 'sd15'?"


def test_extends_is_one_name(user: Path) -> None:
    (user / "child.toml").write_text('extends = ["sd15", "builtin"]\n')
    with pytest.raises(InvalidInput, match="must be one name or one path"):
        recipes.load_table("child.toml")


# mistakes


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="no recipe named 'bultin'") as raised:
        recipes.resolve("bultin")
    assert raised.value.hint == "did you mean 'builtin'?"


@pytest.mark.parametrize("name", ["", "..", "../recipes/sd15", "nowhere/x.toml"])
def test_odd_names_are_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        recipes.resolve(name)


def test_a_misspelt_knob_in_a_file_names_file_and_nearest(user: Path) -> None:
    (user / "mine.toml").write_text('extends = "builtin"\n[training]\nstep = 3\n')
    with pytest.raises(InvalidInput, match=r"mine\.toml: unknown key 'training\.step' \(did you mean 'steps'\?\)"):
        recipes.resolve("mine.toml")


def test_a_misspelt_knob_on_the_line_blames_the_line() -> None:
    with pytest.raises(InvalidInput, match=r"recipe 'builtin' with the values given on the command line: unknown key"):
        recipes.resolve("builtin", [{"training": {"step": 3}}])


def test_overrides_come_last_and_the_later_wins() -> None:
    recipe = recipes.resolve("builtin", [{"training": {"steps": 3}}, {"training": {"steps": 4, "seed": 5}}])
    assert (recipe.training.steps, recipe.training.seed, recipe.training.batch_size) == (4, 5, 4)


# the recipe for a base model


@pytest.mark.parametrize(
    ("source", "family", "name"), [("builtin", "sd15", "builtin"), (SD15, "sd15", "sd15"), ("me/mine", "sd15", "sd15")]
)
def test_the_default_recipe_is_the_bases_own_else_the_familys(source: str, family: str, name: str) -> None:
    assert recipes.default_for(source, family) == name


def test_a_base_that_no_recipe_is_for_is_said() -> None:
    with pytest.raises(NotFound, match=r"no recipe ships for 'me/mine' \(family flux9\)") as raised:
        recipes.default_for("me/mine", "flux9")
    assert "--recipe FILE" in (raised.value.hint or "")


def test_recipes_lie_in_configs() -> None:
    assert recipes.find("sd15") == paths.configs_dir() / "recipes" / "sd15.toml"
