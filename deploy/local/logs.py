"""The stack's logs: one file of bounded size for each process, and all of them merged on the terminal."""

import sys
from pathlib import Path
from typing import TextIO

_MAX_BYTES = 10 * 2**20
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94)
_NAME_WIDTH = 16


class LogSink:
    """Writes lines to `<folder>/<process>.log`, and to a terminal if one is given. One older file of each process is kept."""

    def __init__(self, folder: Path, terminal: TextIO | None = None) -> None:
        self._folder = folder
        self._terminal = terminal
        self._files: dict[str, TextIO] = {}

    def write(self, name: str, line: str) -> None:
        """Write one line of a process."""
        file = self._files.get(name) or self._open(name)
        file.write(line + "\n")
        if file.tell() > _MAX_BYTES:
            file.close()
            path = self._folder / f"{name}.log"
            path.replace(path.with_suffix(".log.1"))
            self._open(name)
        if self._terminal:
            self._terminal.write(f"{self._label(name)} {line}\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _open(self, name: str) -> TextIO:
        # Line buffered, so that the file is complete whenever somebody reads it.
        file = (self._folder / f"{name}.log").open("a", buffering=1)
        self._files[name] = file
        return file

    def _label(self, name: str) -> str:
        text = f"{name:<{_NAME_WIDTH}}|"
        if not sys.stdout.isatty():
            return text
        return f"\033[{_COLOURS[sum(name.encode()) % len(_COLOURS)]}m{text}\033[0m"
