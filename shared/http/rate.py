"""How often an account may ask: counted in this process's memory, so that each replica allows the limit for itself."""

import math
import time
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from shared.errors import LimitError


class RequestRate:
    """Counts requests per account in a window that slides over the last minute."""

    def __init__(self, default: int) -> None:
        self._default = default
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, account_id: UUID, own_limit: int | None) -> None:
        """Count one request. Raises LimitError past the account's own limit or, where it has none, the default."""
        limit = self._default if own_limit is None else own_limit
        item, key = RateLimitItemPerMinute(limit), str(account_id)
        if await self._window.hit(item, key):
            return
        reset_at, _ = await self._window.get_window_stats(item, key)
        seconds = max(1, math.ceil(reset_at - time.time()))
        msg = f"max_requests_per_minute: this account may send {limit} requests a minute; come back in {seconds} s"
        raise LimitError(msg, headers={"Retry-After": str(seconds)})
