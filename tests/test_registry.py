"""The registry loses nothing, refuses contradictions, and says plainly when its file is damaged."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.run import ModelFile, RunRecord, State, Target
from dreamctl.domain.versions import find_version
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.migrations import MIGRATIONS
from dreamctl.registry import Registry

SKS = Concept(identifier="sks", category="person")
WHEN = "2026-11-20T10:00:00.000Z"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry.db")


def record(number: int, key: str = "k") -> RunRecord:
    return RunRecord(
        id=f"20261120-10000{number}-aaaa",
        project="p",
        target=Target.private,
        backend="local",
        key=key,
        pictures="p",
        created=WHEN,
    )


def model(concept: Concept = SKS, base_digest: str = "b", digest: str = "d") -> ModelFile:
    return ModelFile(
        digest=digest, family="sd15", format="peft", base="builtin", base_digest=base_digest,
        steps=10, final_loss=0.1, concepts=(concept,), files=(),
    )  # fmt: skip


def taught(registry: Registry, number: int, concept: Concept = SKS, **values: str) -> list[str]:
    made = registry.harvest(record(number), concept, "builtin", State.succeeded, model(concept, **values), WHEN)
    return [item.name for item in made]


def add(registry: Registry, number: int, concept: Concept) -> None:
    registry.add_run(record(number), concept, "builtin", WHEN)


def test_an_identifier_is_one_whatever_its_case_and_composition(registry: Registry) -> None:
    add(registry, 1, Concept(identifier="Café", category="mug"))
    found = registry.concept("CAFE\u0301")
    assert found is not None
    assert found.identifier == "Café"


@pytest.mark.parametrize("other", [{"category": "dog"}, {"kind": Kind.style}])
def test_category_and_kind_belong_to_the_identifier(registry: Registry, other: dict[str, str]) -> None:
    add(registry, 1, SKS)
    add(registry, 2, SKS)
    with pytest.raises(InvalidInput, match=r"'sks' is taken by 'sks' \(person, subject\)"):
        add(registry, 3, SKS.model_copy(update=other))
    assert registry.run(record(3).id) is None


def test_a_human_name_finds_its_concept_and_is_taken_once(registry: Registry) -> None:
    add(registry, 1, SKS.model_copy(update={"name": "Luna"}))
    assert registry.concept("luna") == SKS.model_copy(update={"name": "Luna"})
    with pytest.raises(InvalidInput, match="'Luna' is taken by 'sks'"):
        add(registry, 2, Concept(identifier="zwx", category="dog", name="Luna"))
    with pytest.raises(InvalidInput, match="'luna' is the human name of 'sks'"):
        add(registry, 2, Concept(identifier="luna", category="person"))
    add(registry, 2, SKS.model_copy(update={"name": "Max"}))
    assert registry.concept("luna") is None


def test_an_old_run_folder_renames_nothing_and_stands_in_nobodys_way(registry: Registry) -> None:
    add(registry, 1, SKS.model_copy(update={"name": "Max"}))
    add(registry, 2, Concept(identifier="zwx", category="person", name="Luna"))
    assert taught(registry, 3, SKS.model_copy(update={"name": "Luna"})) == ["sks@1"]
    named = [(concept.identifier, concept.name) for concept in registry.concepts()]
    assert named == [("sks", "Max"), ("zwx", "Luna")]


def test_versions_count_within_identifier_target_and_base(registry: Registry) -> None:
    assert taught(registry, 1) == ["sks@1"]
    assert taught(registry, 2) == ["sks@2"]
    assert taught(registry, 3, base_digest="other") == ["sks@1"]
    assert taught(registry, 4, Concept(identifier="zwx", category="dog")) == ["zwx@1"]
    assert taught(registry, 2) == ["sks@2"], "harvesting twice changes nothing"
    assert [item.name for item in registry.versions("SKS")] == ["sks@1", "sks@2", "sks@1"]


def test_a_version_is_found_by_name(registry: Registry) -> None:
    taught(registry, 1)
    taught(registry, 2)
    assert find_version(registry.versions(), "sks").number == 2
    assert find_version(registry.versions(), "sks@1").number == 1
    taught(registry, 3, base_digest="other")
    with pytest.raises(InvalidInput, match="'sks@1' is there on 2 bases") as twice:
        find_version(registry.versions(), "sks@1")
    assert record(3).id in (twice.value.hint or "")
    assert find_version(registry.versions(), record(3).id).base_digest == "other"
    with pytest.raises(NotFound, match="no version 'sks@7'"):
        find_version(registry.versions(), "sks@7")
    with pytest.raises(NotFound, match="no model version of 'skz'") as raised:
        find_version(registry.versions(), "skz")
    assert raised.value.hint == "did you mean 'sks'?"


def test_an_identifier_is_free_again_when_nothing_of_it_is_left(registry: Registry) -> None:
    taught(registry, 1)
    taught(registry, 2)
    registry.remove_run(record(1).id)
    assert [item.name for item in registry.versions()] == ["sks@2"]
    assert registry.concept("sks") == SKS
    registry.remove_run(record(2).id)
    assert registry.concept("sks") is None
    add(registry, 3, Concept(identifier="sks", category="dog"))


def test_runs_are_found_by_key_newest_first(registry: Registry) -> None:
    for number in (1, 2):
        add(registry, number, SKS)
    registry.harvest(record(2), SKS, "builtin", State.failed, None, WHEN)
    registry.set_remote_id(record(2).id, "42")
    newest, oldest = registry.runs_of_key("k")
    assert (newest.id, newest.state, newest.remote_id) == (record(2).id, State.failed, "42")
    assert oldest.state is State.created
    assert registry.runs_of_key("other") == []


def test_pictures_are_known_by_their_digest_or_by_one_another_in_their_folder(registry: Registry) -> None:
    add(registry, 1, SKS)
    here, there = registry.path.parent / "a", registry.path.parent / "b"
    registry.record_dataset(here, here, ["1", "2"], "sks", WHEN)
    assert registry.taught_as(there, "p", []) == SKS, "the same pictures, wherever they lie"
    assert registry.taught_as(here, "changed", ["2", "3"]) == SKS, "one more picture, one less"
    assert registry.taught_as(here, "changed", ["3", "4"]) is None, "another subject in the same folder"
    assert registry.taught_as(there, "changed", ["1"]) is None


def test_a_full_disk_is_told_as_such_and_loses_nothing(registry: Registry) -> None:
    add(registry, 1, SKS)
    registry._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DreamctlError, match="no space left") as raised:
        for number in range(2, 10):
            add(registry, number, Concept(identifier=f"x{number}", category="y" * 60))
            for step in range(100):
                registry.record_dataset(Path(f"/{number}/{step}" + "z" * 200), Path("/"), ["1"], "sks", WHEN)
    assert "free some space" in (raised.value.hint or "")
    registry._db.execute("PRAGMA max_page_count = 100000")
    add(registry, 9, SKS)


def test_a_disk_without_room_for_a_registry_is_told_as_such(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"0" * 56 * 1024)
    with pytest.raises(DreamctlError, match=r"registry\.db: no space left on device") as raised:
        Registry.open(small_disk / "registry.db")
    assert "free some space" in (raised.value.hint or "")


def test_the_file_is_private_and_in_wal_mode(registry: Registry) -> None:
    assert stat.S_IMODE(registry.path.stat().st_mode) == 0o600
    with sqlite3.connect(registry.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_newer_file_is_refused(registry: Registry) -> None:
    registry.close()
    with sqlite3.connect(registry.path) as db:
        db.execute("PRAGMA user_version = 999")
    with pytest.raises(DreamctlError, match="newer dreamctl"):
        Registry.open(registry.path)


def test_an_older_file_is_backed_up_before_it_is_migrated(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    add(registry, 1, SKS)
    registry.close()
    later = [*MIGRATIONS, lambda db: db.execute("ALTER TABLE concepts ADD COLUMN note TEXT")]
    monkeypatch.setattr("dreamctl.registry.MIGRATIONS", later)
    migrated = Registry.open(registry.path)
    assert migrated.concept("sks") == SKS
    (copy,) = registry.path.parent.glob(f"registry.schema-{len(MIGRATIONS)}.*.db")
    with sqlite3.connect(copy) as db:
        assert db.execute("SELECT identifier FROM concepts").fetchall() == [("sks",)]


def test_a_failed_migration_leaves_the_old_schema(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.close()

    def broken(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE half (x)")
        raise RuntimeError("power cut")

    monkeypatch.setattr("dreamctl.registry.MIGRATIONS", [*MIGRATIONS, broken])
    with pytest.raises(RuntimeError):
        Registry.open(registry.path)
    with sqlite3.connect(registry.path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)


@pytest.mark.parametrize(
    "damage", [b"not a database at all, but long enough to look at" * 30, b"SQLite format 3\0" + b"x" * 4000]
)
def test_a_damaged_file_is_one_sentence_with_a_way_out(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "registry.db"
    file.write_bytes(damage)
    with pytest.raises(DreamctlError, match=r"registry .*registry\.db is damaged") as raised:
        Registry.open(file)
    assert "move it away" in (raised.value.hint or "")


WRITER = """
import sys
from pathlib import Path
from dreamctl.registry import Registry
from dreamctl.domain.concept import Concept
from dreamctl.domain.run import RunRecord, Target
who = int(sys.argv[2])
registry = Registry.open(Path(sys.argv[1]))
concept = Concept(identifier="sks", category="person")
for number in range(int(sys.argv[3])):
    name = f"2026{who:04}-{number:06}-aaaa"
    run = RunRecord(id=name, project="p", target=Target.private, backend="local", key="k",
        pictures="p", created="now")
    registry.add_run(run, concept, "builtin", "now")
    print(run.id, flush=True)
"""


def test_eight_processes_open_a_fresh_registry_and_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    command = [sys.executable, "-c", WRITER, str(file)]
    writers = [subprocess.Popen([*command, str(who), "20"], stdout=subprocess.DEVNULL) for who in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    assert len(Registry.open(file).runs()) == 8 * 20


def killed_writers(file: Path, kills: int) -> None:
    """Kill a writer `kills` times; everything that it had acknowledged must be there afterwards."""
    acknowledged: set[str] = set()
    for who in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), str(who), "100000"], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged |= {writer.stdout.readline().strip() for _ in range(5 + 7 * who % 23)}
        writer.kill()
        acknowledged |= {line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        writer.wait()
    assert acknowledged <= {row.id for row in Registry.open(file).runs()}
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    killed_writers(tmp_path / "registry.db", kills=3)


@pytest.mark.soak
def test_kill_9_fifty_times(tmp_path: Path) -> None:
    killed_writers(tmp_path / "registry.db", kills=50)
