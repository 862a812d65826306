"""The rate limit of an account, counted in this process's memory: each replica allows the whole limit."""

import math
import time
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from shared.errors import LimitError


class RequestRate:
    """Counts each account's requests of the last minute."""

    def __init__(self, default: int) -> None:
        self._default = default
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, account_id: UUID, own_limit: int | None) -> None:
        """Count one request. Raises LimitError over the account's own limit or, where that is None, the default."""
        limit = self._default if own_limit is None else own_limit
        item, key = RateLimitItemPerMinute(limit), str(account_id)
        if await self._window.hit(item, key):
            return
        reset_at, _ = await self._window.get_window_stats(item, key)
        seconds = max(1, math.ceil(reset_at - time.time()))
        msg = f"max_requests_per_minute: this account may send {limit} requests a minute; retry in {seconds} s"
        raise LimitError(msg, headers={"Retry-After": str(seconds)})
