"""Waits for conditions: each polls until something is found, and fails after a bound in seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_BOUND_S = 30.0
_LONG_BOUND_S = 300.0
"""Generous: the product's own bounds have tests of their own, and this one only ends a test that would wait for ever."""


async def eventually(found: Callable[[], Awaitable[T | None]], bound_s: float = _BOUND_S) -> T:
    """Return what `found` returns once it is not None."""
    async with asyncio.timeout(bound_s):
        while (value := await found()) is None:
            await asyncio.sleep(0.02)
    return value


def until(found: Callable[[], T | None], what: str, bound_s: float = _LONG_BOUND_S) -> T:
    """Return what `found` returns once it is not None; `what` names the condition where it does not come true."""
    deadline = time.monotonic() + bound_s
    while (value := found()) is None:
        assert time.monotonic() < deadline, f"not within {bound_s} s: {what}"
        time.sleep(0.05)
    return value
