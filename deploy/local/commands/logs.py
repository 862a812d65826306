"""`tunesmith logs`: the logs of the local stack's processes, merged as `tunesmith up` shows them."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.commands.options import DataDir, fail, stack_paths

_EVERY_S = 0.2


def logs(
    processes: Annotated[list[str] | None, typer.Argument(help="Processes, for example trainer. Default: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more lines until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each process to print first.")] = 20,
    data_dir: DataDir = None,
) -> None:
    """Print the logs of the local stack, each line with its process. The files of a stopped stack can be read, too."""
    folder = stack_paths(data_dir).logs
    known = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if not known:
        fail(f"there are no logs in {folder}: start a stack with `tunesmith up`, or name its folder with --data-dir")
    if unknown := [name for name in processes or [] if name not in known]:
        fail(f"PROCESSES: {', '.join(unknown)} has no log: give one of {', '.join(known)}")
    chosen = {name: _Tail(path) for name, path in known.items() if not processes or name in processes}
    width = max(map(len, chosen))
    for name, tail in chosen.items():
        for line in deque(tail.lines(), maxlen=lines):
            print(f"{name:<{width}} | {line}")
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(_EVERY_S)
            for name, tail in chosen.items():
                for line in tail.lines():
                    print(f"{name:<{width}} | {line}", flush=True)


class _Tail:
    """Reads a log from where it stopped reading. A log that became too large is another file by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._inode = 0

    def lines(self) -> Iterator[str]:
        """Yield the complete lines that were written since the last call."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            inode = self._path.stat().st_ino
            if inode != self._inode:
                self._at, self._inode = 0, inode
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                yield line.decode(errors="replace").rstrip("\n")
