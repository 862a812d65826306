"""Opens what a reader is given: a path, or a file that is open already, as the confined child has it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Source = Path | BinaryIO
"""What a reader reads."""


@contextmanager
def opened(source: Source) -> Generator[BinaryIO]:
    """Yield the file at its start, and close it unless the caller had opened it."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size
