"""Slots that accounts share fairly: connections, webhook calls, imports, streams.

An account may take one more slot while it holds fewer than are free (Choudhury and Hahne 1998, dynamic queue thresholds with
alpha = 1). So one busy account gets half of the slots, two get a third each, and a slot is left for the next account until as
many accounts are busy as there are slots.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from uuid import UUID
from weakref import WeakValueDictionary

from shared.errors import LimitError

current_account: ContextVar[UUID | None] = ContextVar("current_account", default=None)
"""The account whose request this task answers; None in background tasks and before the key was checked."""

_RETRY = {"Retry-After": "1"}


class Shares:
    """A number of slots, and which account holds how many of them. For one event loop."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: Counter[UUID] = Counter()
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}

    @property
    def held(self) -> int:
        """How many slots are taken."""
        return self._held.total()

    def held_by(self, account_id: UUID) -> int:
        """Return how many slots the account holds."""
        return self._held[account_id]

    def may_take(self, account_id: UUID) -> bool:
        """Say whether the account may take a slot now."""
        return self._held[account_id] < self._slots - self.held

    def holders(self) -> list[UUID]:
        """Return the accounts that hold a slot."""
        return list(self._held)

    def full(self) -> list[UUID]:
        """Return the accounts that hold slots and may not take another one now."""
        return [account_id for account_id in self._held if not self.may_take(account_id)]

    def fairest(self, accounts: Collection[UUID]) -> UUID | None:
        """Return the account that is to take the next slot: the first of those that hold the fewest. None when none may."""
        allowed = [account_id for account_id in accounts if self.may_take(account_id)]
        return min(allowed, key=self._held.__getitem__) if allowed else None

    def take(self, account_id: UUID) -> None:
        """Take a slot, which `may_take` allows."""
        self._held[account_id] += 1

    def give_back(self, account_id: UUID) -> None:
        """Give a slot back, and pass it to a task that waits for one."""
        self._held[account_id] -= 1
        if not self._held[account_id]:
            # Or the counter would keep every account that ever called.
            del self._held[account_id]
        self._wake()

    @contextmanager
    def slot_now(self, account_id: UUID, message: str) -> Generator[None]:
        """Hold a slot during the block. Raises LimitError with the message unless the account may take one now."""
        if not self.may_take(account_id):
            raise LimitError(message, headers={"Retry-After": "5"})
        self.take(account_id)
        try:
            yield
        finally:
            self.give_back(account_id)

    @asynccontextmanager
    async def slot(self, account_id: UUID, *, wait_s: float, message: str) -> AsyncGenerator[None]:
        """Hold a slot during the block. Waits for it, and raises LimitError with the message after `wait_s` seconds."""
        if account_id not in self._waiting and self.may_take(account_id):
            self.take(account_id)
        else:
            await self._wait(account_id, wait_s, message)
        try:
            yield
        finally:
            self.give_back(account_id)

    async def _wait(self, account_id: UUID, wait_s: float, message: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account_id, deque()).append(turn)
        try:
            await asyncio.wait([turn], timeout=wait_s)
        except asyncio.CancelledError:
            if turn.done():
                self.give_back(account_id)
            raise
        finally:
            if not turn.done():
                self._leave(account_id, turn)
        if not turn.done():
            raise LimitError(message, headers=_RETRY)

    def _leave(self, account_id: UUID, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting[account_id]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[account_id]

    def _wake(self) -> None:
        while (account_id := self.fairest(self._waiting)) is not None:
            turn = self._waiting[account_id][0]
            self._leave(account_id, turn)
            if account_id in self._waiting:
                # Behind the other accounts: of those that hold as many slots, the one that waited longest is next.
                self._waiting[account_id] = self._waiting.pop(account_id)
            self.take(account_id)
            turn.set_result(None)


class Turns:
    """Lets each account do one thing at a time, in the order in which its tasks asked."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, account_id: UUID, *, wait_s: float, message: str) -> AsyncGenerator[None]:
        """Hold the account's turn during the block. Raises LimitError with the message after a wait of `wait_s` seconds."""
        lock = self._locks.get(account_id)
        if lock is None:
            lock = self._locks[account_id] = asyncio.Lock()
        try:
            async with asyncio.timeout(wait_s):
                await lock.acquire()
        except TimeoutError:
            raise LimitError(message, headers=_RETRY) from None
        try:
            yield
        finally:
            lock.release()
