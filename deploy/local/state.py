"""The state of a stack, in a file that the supervisor writes and commands and tests read."""

import fcntl
import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from deploy.local.paths import StackPaths


class ProcessState(BaseModel):
    """A process of the stack. `pid` is null while it is down."""

    pid: int | None
    restarts: int
    ready: bool


class StackState(BaseModel):
    """The stack, as its supervisor wrote it last."""

    supervisor: int
    url: str
    ready: bool
    error: str = ""
    env: dict[str, str] = {}
    processes: dict[str, ProcessState] = {}


def write(path: Path, state: StackState) -> None:
    """Replace the file as a whole, so that a reader never sees half of it."""
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(state.model_dump_json(indent=1))
    draft.replace(path)


def read(paths: StackPaths) -> StackState | None:
    """Return the state of the stack that runs on this data folder, or None if none runs."""
    return load(paths) if is_locked(paths.lock) else None


def load(paths: StackPaths) -> StackState | None:
    """Return the state that was written last, even if the stack has stopped."""
    try:
        return StackState.model_validate_json(paths.state.read_text())
    except (FileNotFoundError, ValidationError):
        return None


def open_lock(path: Path) -> int | None:
    """Take the stack's lock and return its file descriptor, or None if a process of a stack holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(path: Path) -> bool:
    """Return whether any process of the stack still lives. Each of them holds the lock."""
    if not path.exists():
        return False
    fd = open_lock(path)
    if fd is None:
        return True
    os.close(fd)
    return False
