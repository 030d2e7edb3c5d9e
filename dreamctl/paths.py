"""Where dreamctl keeps things: the user's data, the user's settings, and the project.

`DREAMCTL_HOME` moves all of the user's part (data, settings, caches) into one folder.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_data_path

PROJECT_FILE = "dreamctl.toml"
DATASET_FOLDER = "processed"
PICTURES_FOLDER = "generated_images"


def _home() -> Path | None:
    home = os.environ.get("DREAMCTL_HOME")
    return Path(home).expanduser().absolute() if home else None


def data_dir() -> Path:
    """The registry and the runs."""
    return _home() or user_data_path("dreamctl", appauthor=False)


def config_dir() -> Path:
    """The user's settings and, where there is no keyring, tokens."""
    return _home() or user_config_path("dreamctl", appauthor=False)


def cache_dir() -> Path:
    """What can be made again: class pictures, downloads."""
    home = _home()
    return home / "cache" if home else user_cache_path("dreamctl", appauthor=False)


def user_file() -> Path:
    return config_dir() / "config.toml"


def credentials_file() -> Path:
    return config_dir() / "credentials.json"


def registry_file() -> Path:
    return data_dir() / "registry.db"


def runs_dir() -> Path:
    return data_dir() / "runs"


def locks_dir() -> Path:
    return data_dir() / "locks"


def computer() -> str:
    """A name for this user's dreamctl on this computer as long as it is not started anew: no other has the same.

    Not kept in a file: a folder that is copied to other computers, as caches of CI are, would take it along.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text().strip() if boot.exists() else ""
    return hashlib.sha256(f"{socket.gethostname()}\n{started}\n{data_dir()}".encode()).hexdigest()[:16]


def project_dir(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds `dreamctl.toml`; without one, the current folder."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return here


def configs_dir() -> Path:
    """The recipes and profiles that ship with the program: inside the wheel, or `configs/` of a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
