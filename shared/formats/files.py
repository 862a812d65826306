"""Opens what a reader is given: a path, or a file that is open already, as the confined child has it."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


class _Window(io.RawIOBase):
    """A part of an open file as a file of its own, such as a member of a tar."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the start, the position or the end of the part."""
        self._position = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position in the part."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, or fewer at the part's end."""
        left = max(0, self._size - self._position)
        self._file.seek(self._start + self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data


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


def window(file: BinaryIO, start: int, size: int) -> BinaryIO:
    """Return a part of an open file as a file of its own, for reading."""
    return cast("BinaryIO", _Window(file, start, size))


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size
