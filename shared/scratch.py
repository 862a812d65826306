"""Temporary files of a process, which the next start deletes if the process could not."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shared.ids import new_ulid
from shared.telemetry import get_logger

log = get_logger(__name__)

PREFIX = "scratch-"
_LOCK = "lock"


class Scratch:
    """A folder below `parent` for this process's temporary files.

    The process holds a lock on its folder, which ends with it: folders without one are left over from a process that was
    killed, and are deleted when the next Scratch with the same parent is made. Processes may share a parent.

    `leftovers` are patterns of other names below the parent that no running process uses.
    """

    def __init__(self, parent: Path, *, leftovers: tuple[str, ...] = ()) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._lock = -1
        if parent.is_dir():
            _delete_leftovers(parent, leftovers)

    @property
    def folder(self) -> Path:
        """The folder, which is made when it is first asked for."""
        if self._folder is None or not self._folder.is_dir():
            self._folder, self._lock = _make(self._parent)
        return self._folder

    @contextmanager
    def temporary(self, prefix: str) -> Generator[Path]:
        """Yield an empty folder, and delete it with its contents at the end."""
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.folder, ignore_cleanup_errors=True) as name:
            yield Path(name)


def _make(parent: Path) -> tuple[Path, int]:
    """Make a locked folder; it has its name only once it is locked, so that no other process takes it for a leftover."""
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
    lock = os.open(draft / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return draft.rename(parent / f"{PREFIX}{new_ulid()}"), lock


def _delete_leftovers(parent: Path, patterns: tuple[str, ...]) -> None:
    names = [path for path in parent.glob(f"{PREFIX}*") if not _is_in_use(path)]
    names += [path for pattern in patterns for path in parent.glob(pattern)]
    for path in names:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if names:
        log.info("scratch.cleaned", folder=str(parent), deleted=len(names))


def _is_in_use(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
