"""How Kafka's clients are started and stopped, so that none keeps a connection or holds the process up."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

_START_GRACE_S = 2.0


async def start_whole(starting: Coroutine[Any, Any, object]) -> None:
    """Await a client's start; when cancelled, let the start end first, for at most two seconds.

    aiokafka 0.14 closes no connection whose opening was cut off: it stays open until the garbage collector finds it.
    """
    task = asyncio.create_task(starting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await end_within(_START_GRACE_S, task)
        raise


async def end_within(timeout_s: float, ending: Awaitable[object]) -> None:
    """Await the end of a client that is discarded, for at most `timeout_s` seconds; ignore its errors.

    It runs as a task of its own: aiokafka's `stop()` may raise CancelledError when the broker is unavailable, which would look
    like the caller's own cancellation.
    """
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
