"""Readers that do what the confined child must not let them do."""

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel


class Found(BaseModel):
    """What a reader found."""

    text: str = ""


def read_text(file: BinaryIO) -> Found:
    """Return the file's own text."""
    return Found(text=file.read().decode())


def take_memory(_file: BinaryIO) -> Found:
    """Ask for more memory than there is."""
    held = [bytes(64 << 20) for _ in range(1000)]
    return Found(text=str(len(held)))


def spin(_file: BinaryIO) -> Found:
    """Use the processor without an end."""
    while True:
        pass


def use_a_second(_file: BinaryIO) -> Found:
    """Use a second of processor time."""
    until = time.process_time() + 1.0
    while time.process_time() < until:
        pass
    return Found()


def hang(_file: BinaryIO) -> Found:
    """Wait without an end, and use nothing."""
    signal.pause()
    return Found()


def end_the_process(_file: BinaryIO) -> Found:
    """End without an answer."""
    os._exit(1)


def crash(_file: BinaryIO) -> Found:
    """End as a process does whose library has a fault."""
    os.abort()


def fill_the_disk(_file: BinaryIO, target: BinaryIO) -> Found:
    """Write more than is allowed."""
    target.writelines(bytes(1 << 20) for _ in range(1000))
    return Found()


def raise_a_bug(_file: BinaryIO) -> Found:
    """Fail as a reader does that has a fault."""
    raise KeyError("shape")


def answer_at_length(_file: BinaryIO) -> Found:
    """Return far more than any reader needs to."""
    return Found(text="x" * (4 << 20))


def use_a_thread(_file: BinaryIO) -> Found:
    """Return what a thread has found."""
    found: list[str] = []
    thread = threading.Thread(target=found.append, args=("a thread",))
    thread.start()
    thread.join()
    return Found(text=" ".join(found))


def attempt_everything(_file: BinaryIO, secret: str) -> Found:
    """Return the names of what succeeds of all that a reader has no business with."""
    done: list[str] = []
    for name, attempt in {
        "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "own file": lambda: Path(secret).read_text(),
        "new file": lambda: Path(secret).with_name("made").write_text("x"),
        "parent's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "signal": lambda: os.kill(os.getppid(), 0),
        "fork": _fork,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "root": lambda: os.setuid(0) if os.getuid() == 0 else _refuse(),
    }.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    environment = sorted(os.environ.keys() - {"PATH", "PYTHONPATH", "LC_CTYPE"})
    return Found(text=" ".join(done + environment))


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _refuse() -> None:
    raise PermissionError
