"""A queue in memory for work that takes longer than a transaction may. Intake, imports and registration have one each."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from uuid import UUID

from shared.shares import Shares
from shared.telemetry import get_logger

log = get_logger(__name__)

Job = Callable[[str], Awaitable[None]]
_ROOM = 64
"""Keys that may wait before `room` blocks, of which an account counts with at most `_COUNTED`."""
_COUNTED = 16
_NO_ACCOUNT = UUID(int=0)


class WorkQueue:
    """Runs jobs by key, a few at a time, fairly by account. A key that waits or runs already is not queued twice.

    A consumer's handler only queues a key here, and its record is acknowledged. No work is lost by that, because the
    database says what is left to do: when the process dies or a dependency is unavailable, the reconciler finds the late
    row. A handler that did the work itself would hold its transaction open while a large file is copied and read, longer
    than `idle_in_transaction_session_timeout` allows, and would block the other uploads of its partition.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._waiting: dict[UUID, deque[tuple[str, Job]]] = {}
        self._shares = Shares(concurrency)
        self._news = asyncio.Event()
        self._taken: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, key: str, job: Job, account_id: UUID = _NO_ACCOUNT) -> None:
        """Queue `job(key)` for an account, unless the key waits or runs already."""
        if key not in self._taken:
            self._taken.add(key)
            self._waiting.setdefault(account_id, deque()).append((key, job))
            self._news.set()
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
            account_id, key, job = await self._next()
            try:
                await job(key)
            except Exception as error:  # noqa: BLE001 - the reconciler retries what the job left undecided
                log.warning("work.failed", key=key, error=repr(error))
            finally:
                self._taken.discard(key)
                self._shares.give_back(account_id)
                self._news.set()

    async def _next(self) -> tuple[UUID, str, Job]:
        """Return the oldest key of the account that is to work next: of those that may, the one with the fewest running."""
        while (account_id := self._shares.fairest([account for account, keys in self._waiting.items() if keys])) is None:
            self._news.clear()
            await self._news.wait()
        key, job = self._waiting[account_id].popleft()
        # Behind the other accounts, or away when nothing waits.
        left = self._waiting.pop(account_id)
        if left:
            self._waiting[account_id] = left
        self._shares.take(account_id)
        self._update_room()
        return account_id, key, job

    def _update_room(self) -> None:
        # A long queue of one account must not keep the events of the others from being read.
        if sum(min(len(keys), _COUNTED) for keys in self._waiting.values()) < _ROOM:
            self._room.set()
        else:
            self._room.clear()
