"""Tokens: which one counts, where it is kept, who can read it, and that it is never shown."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamctl import credentials, http, paths
from dreamctl.errors import CredentialsError, InvalidInput

TOKEN = "hf_aaaaBBBBcccc1234"
OTHER = "hf_ddddEEEEffff5678"
NONE = "keyring.backends.fail.Keyring"


@pytest.fixture(autouse=True)
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Neither the tokens nor the keyring of the person who runs the tests; gives the keyring library."""
    for provider in credentials.PROVIDERS.values():
        for name in provider.variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", NONE)
    library = pytest.importorskip("keyring")
    before = library.get_keyring()
    library.set_keyring(library.backends.fail.Keyring())
    yield library
    library.set_keyring(before)


@pytest.fixture
def memory() -> Any:
    """A keyring's backend that keeps passwords in this process, and that somebody may lock."""
    from keyring.backend import KeyringBackend
    from keyring.errors import PasswordDeleteError

    class Memory(KeyringBackend):  # type: ignore[misc, unused-ignore]
        priority = 5  # type: ignore[assignment, unused-ignore]
        name = "memory"

        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[tuple[str, str], str] = {}
            self.locked = False

        def get_password(self, service: str, username: str) -> str | None:
            self._open()
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self._open()
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            self._open()
            if self.kept.pop((service, username), None) is None:
                raise PasswordDeleteError

        def _open(self) -> None:
            if self.locked:
                raise RuntimeError(f"the prompt was dismissed, {TOKEN}")

    return Memory()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# order


def test_without_any_there_is_none() -> None:
    assert [credentials.token(name) for name in credentials.PROVIDERS] == [None] * 4


def test_environment_beats_dotenv_beats_keyring_beats_file(
    user: Path, monkeypatch: pytest.MonkeyPatch, keyring: Any, memory: Any
) -> None:
    keyring.set_keyring(memory)
    credentials.store("huggingface", "in-the-keyring")
    keyring.set_keyring(keyring.backends.fail.Keyring())
    place = credentials.store("huggingface", "in-the-file")
    assert credentials.find("huggingface") == credentials.Found("in-the-file", place)

    keyring.set_keyring(memory)
    assert credentials.find("huggingface") == credentials.Found("in-the-keyring", "keyring (memory)")

    (user / ".env").write_text("HF_TOKEN=in-dotenv\n")
    assert credentials.find("huggingface") == credentials.Found("in-dotenv", f"HF_TOKEN in {user / '.env'}")

    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "in-the-environment")
    assert credentials.find("huggingface") == credentials.Found("in-the-environment", "HUGGING_FACE_HUB_TOKEN")

    monkeypatch.setenv("HF_TOKEN", "in-its-first-name")
    assert credentials.token("huggingface") == "in-its-first-name"
    assert credentials.token("runpod") is None


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", " ")
    assert credentials.token("runpod") is None


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="no provider named 'replicat'") as raised:
        credentials.token("replicat")
    assert raised.value.hint == "did you mean 'replicate'?"


def test_a_needed_token_that_is_missing_says_where_to_get_one() -> None:
    with pytest.raises(CredentialsError, match="there is no token for runpod") as raised:
        credentials.required("runpod")
    assert "auth login runpod" in (raised.value.hint or "") and "RUNPOD_API_KEY" in (raised.value.hint or "")


# the file


def test_the_file_is_its_owners_alone_and_keeps_the_others() -> None:
    before = os.umask(0)
    try:
        credentials.store("huggingface", TOKEN)
        credentials.store("runpod", "rpa_1234567890")
    finally:
        os.umask(before)
    assert mode(paths.credentials_file()) == 0o600
    assert (credentials.token("huggingface"), credentials.token("runpod")) == (TOKEN, "rpa_1234567890")
    assert json.loads(paths.credentials_file().read_text())["schema"] == 1


def test_no_other_file_holds_the_token_afterwards() -> None:
    credentials.store("huggingface", TOKEN)
    credentials.store("huggingface", OTHER)
    home = paths.config_dir()
    holding = [path.name for path in home.rglob("*") if path.is_file() and TOKEN in path.read_text()]
    assert holding == []


def test_a_loose_mode_is_repaired_and_said(caplog: pytest.LogCaptureFixture) -> None:
    credentials.store("huggingface", TOKEN)
    paths.credentials_file().chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert credentials.token("huggingface") == TOKEN
    assert mode(paths.credentials_file()) == 0o600
    assert "could be read by others" in caplog.text
    assert TOKEN not in caplog.text


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    target.write_text('{"tokens": {"huggingface": "x"}}')
    paths.config_dir().mkdir(parents=True, exist_ok=True)
    paths.credentials_file().symlink_to(target)
    with pytest.raises(CredentialsError, match=r"credentials\.json: "):
        credentials.token("huggingface")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens": {"huggingface": 5}}', f'{{"tokens": "{TOKEN}'])
def test_a_broken_file_is_named_and_not_quoted(text: str) -> None:
    paths.config_dir().mkdir(parents=True, exist_ok=True)
    paths.credentials_file().write_text(text)
    with pytest.raises(CredentialsError, match=r"credentials\.json is not a credentials file") as raised:
        credentials.token("huggingface")
    assert TOKEN not in str(raised.value)
    assert "auth login" in (raised.value.hint or "")


def test_many_programs_that_store_at_once_lose_nothing(tmp_path: Path) -> None:
    program = "import sys; from dreamctl import credentials; credentials.store(*sys.argv[1:])"
    tokens = {name: f"{name}-token-{number}" for number, name in enumerate(credentials.PROVIDERS)}
    running = [
        subprocess.Popen([sys.executable, "-c", program, name, value], env=dict(os.environ))
        for name, value in tokens.items()
        for _ in range(2)
    ]
    assert [process.wait(60) for process in running] == [0] * len(running)
    assert {name: credentials.token(name) for name in tokens} == tokens


def test_forgetting_says_from_where_and_keeps_the_others() -> None:
    credentials.store("huggingface", TOKEN)
    credentials.store("runpod", "rpa_1234567890")
    assert credentials.forget("huggingface") == [str(paths.credentials_file())]
    assert credentials.forget("huggingface") == []
    assert (credentials.token("huggingface"), credentials.token("runpod")) == (None, "rpa_1234567890")


# the keyring


def test_a_keyring_is_preferred_and_takes_the_old_copy_out_of_the_file(keyring: Any, memory: Any) -> None:
    credentials.store("huggingface", TOKEN)
    keyring.set_keyring(memory)
    assert credentials.store("huggingface", OTHER) == "keyring (memory)"
    assert TOKEN not in paths.credentials_file().read_text()
    assert OTHER not in paths.credentials_file().read_text()
    assert credentials.token("huggingface") == OTHER
    assert credentials.forget("huggingface") == ["keyring (memory)"]
    assert credentials.token("huggingface") is None


def test_a_keyring_that_does_not_open_leaves_the_file(
    keyring: Any, memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keyring.set_keyring(memory)
    memory.locked = True
    assert credentials.store("huggingface", TOKEN) == str(paths.credentials_file())
    assert credentials.token("huggingface") == TOKEN
    assert "keyring" in caplog.text
    assert TOKEN not in caplog.text


def test_another_home_is_another_user(
    keyring: Any, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring.set_keyring(memory)
    credentials.store("huggingface", TOKEN)
    monkeypatch.setenv("DREAMCTL_HOME", str(tmp_path / "another"))
    assert credentials.token("huggingface") is None


@pytest.mark.parametrize("backend", [NONE, "keyring.backends.null.Keyring", "no.such.Backend"])
def test_a_keyring_without_a_working_backend_leaves_the_file(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    program = f"from dreamctl import credentials; print(credentials.store('huggingface', {TOKEN!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(paths.credentials_file())


# what a token looks like, and that it is never shown


@pytest.mark.parametrize("text", ["", "  \n", "two words", "hf_tab\tbed", "hf_ümlaut"])
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        credentials.checked_form(text)
    assert not text.strip() or text.strip() not in raised.value.message


def test_spaces_around_a_token_are_dropped() -> None:
    assert credentials.checked_form(f" {TOKEN}\n") == TOKEN


def test_a_found_token_shows_in_no_repr_and_is_hidden_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "OLDSTYLEKEYWITHOUTPREFIX")
    found = credentials.find("runpod")
    assert "OLDSTYLE" not in repr(found)
    assert http.redact("key OLDSTYLEKEYWITHOUTPREFIX refused") == "key *** refused"
