"""What differs between the two clients: how they wait, read files, and do several things at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
CHUNK_BYTES = 256 * 2**10


async def sleep(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


async def each(things: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int) -> list[R]:
    """Return what `work` returns for each thing, in their order. At most `at_once` of them are in work at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(thing: T) -> R:
        async with room:
            return await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(thing)) for thing in things]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def chunks_of(path: Path, on_bytes: Callable[[int], object] | None) -> AsyncIterator[bytes]:
    """Yield a file's bytes, and tell `on_bytes` how many have been read."""
    with await asyncio.to_thread(path.open, "rb") as file:
        read = 0
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
            read += len(chunk)
            if on_bytes:
                on_bytes(read)
