"""What all processes of one test run share: each thing is made by the first that needs it, and every stack ends with the run.

The processes are pytest itself, or with `-n` its workers.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = Path(sys.executable).parent / "tunesmith"
_END_S = 180


class SharedRun:
    """A folder that belongs to the whole run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stack_folder(self, name: str) -> Path:
        """Return the data folder for a stack of this run. What runs there is ended with the run."""
        folder = self.folder / "stacks" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep every other process of the run out of the blocks with this name."""
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def once(self, name: str, make: Callable[[], str]) -> str:
        """Return what `make` returned to the first process of the run that asked for this name."""
        made = self.folder / name
        with self.locked(name):
            if not made.exists():
                made.write_text(make())
            return made.read_text()

    def end(self, *, keep: bool) -> None:
        """End the stacks, also those of a worker that was killed; the folder with their logs is kept on request."""
        for folder in self.folder.glob("stacks/*"):
            subprocess.run([COMMAND, "down", "--data-dir", folder], check=True, stdout=subprocess.DEVNULL, timeout=_END_S)
        if keep:
            print(f"\nThe stacks' data and logs are kept in {self.folder}.")
        else:
            shutil.rmtree(self.folder)
