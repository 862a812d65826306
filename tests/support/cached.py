"""Folders of the user's cache that are made once and shared by all clones and runs."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

from deploy.local.paths import cache_dir

_MADE = "made"
"""The file that is written last, so that a folder whose making was interrupted is made again."""


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder with this name, which `make` is called with if it is not complete.

    The name must change with what the folder is made of. Of several processes at once, one makes it and the others wait.
    """
    folder = cache_dir() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _MADE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / _MADE).touch()
    return folder
