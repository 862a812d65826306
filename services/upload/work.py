"""Work that takes longer than a transaction may: intake and registration, outside of the consumer."""

import asyncio
from collections.abc import Awaitable, Callable

from shared.telemetry import get_logger

log = get_logger(__name__)

Job = Callable[[str], Awaitable[None]]
_ROOM = 64


class WorkQueue:
    """Runs jobs by id, a few at a time; an id that waits or runs already is not taken twice.

    A consumer's handler only puts an id here and its record is acknowledged. That is safe, because the database says what
    is left to do: whatever is lost here, when the process dies or a dependency is away, the reconciler finds by its row past
    a bound. The other way, working inside the handler, would hold a transaction open for as long as a large file takes to be
    copied and read, past `idle_in_transaction_session_timeout`, and keep the partition from all other uploads.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._waiting: asyncio.Queue[tuple[str, Job]] = asyncio.Queue()
        self._taken: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, key: str, job: Job) -> None:
        """Have `job(key)` run soon."""
        if key not in self._taken:
            self._taken.add(key)
            self._waiting.put_nowait((key, job))
            self._mind_room()

    async def room(self) -> None:
        """Wait until little waits: what one process cannot do soon is better left to the others of its group."""
        await self._room.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key, job = await self._waiting.get()
            self._mind_room()
            try:
                await job(key)
            except Exception as error:  # noqa: BLE001 - the job has decided what it can, the reconciler tries the rest again
                log.warning("work.failed", key=key, error=repr(error))
            finally:
                self._taken.discard(key)

    def _mind_room(self) -> None:
        if self._waiting.qsize() < _ROOM:
            self._room.set()
        else:
            self._room.clear()
