"""A queue in memory for work that takes longer than a transaction may. Intake, imports and registration have one each."""

import asyncio
from collections.abc import Awaitable, Callable

from shared.telemetry import get_logger

log = get_logger(__name__)

Job = Callable[[str], Awaitable[None]]
_ROOM = 64
"""Keys that may wait before `room` blocks."""


class WorkQueue:
    """Runs jobs by key, a few at a time. A key that waits or runs already is not queued twice.

    A consumer's handler only queues a key here, and its record is acknowledged. No work is lost by that, because the
    database says what is left to do: when the process dies or a dependency is unavailable, the reconciler finds the late
    row. A handler that did the work itself would hold its transaction open while a large file is copied and read, longer
    than `idle_in_transaction_session_timeout` allows, and would block the other uploads of its partition.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._waiting: asyncio.Queue[tuple[str, Job]] = asyncio.Queue()
        self._taken: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, key: str, job: Job) -> None:
        """Queue `job(key)`, unless the key waits or runs already."""
        if key not in self._taken:
            self._taken.add(key)
            self._waiting.put_nowait((key, job))
            self._update_room()

    async def room(self) -> None:
        """Wait until the queue is short, so that other processes of the consumer group get what this one cannot do soon."""
        await self._room.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key, job = await self._waiting.get()
            self._update_room()
            try:
                await job(key)
            except Exception as error:  # noqa: BLE001 - the reconciler retries what the job left undecided
                log.warning("work.failed", key=key, error=repr(error))
            finally:
                self._taken.discard(key)

    def _update_room(self) -> None:
        if self._waiting.qsize() < _ROOM:
            self._room.set()
        else:
            self._room.clear()
