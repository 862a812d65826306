"""What differs between the two clients: how they wait, read files, and do several things at once."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
CHUNK_BYTES = 256 * 2**10


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def each(things: Iterable[T], work: Callable[[T], R], at_once: int) -> list[R]:
    """Return what `work` returns for each thing, in their order. At most `at_once` of them are in work at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(work, thing) for thing in things]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def chunks_of(path: Path, on_bytes: Callable[[int], object] | None) -> Iterator[bytes]:
    """Yield a file's bytes, and tell `on_bytes` how many have been read."""
    with path.open("rb") as file:
        read = 0
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            read += len(chunk)
            if on_bytes:
                on_bytes(read)
