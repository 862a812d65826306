"""Watches one draw from outside of its thread: ends it between two steps, and notices when it hangs."""

import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum

from services.inference.worker.steps import DrawCancelledError


class End(StrEnum):
    """Why a draw is ended."""

    STOPPING = "the worker stops"
    LOST = "the claim is lost"
    OVERDUE = "the draw took too long"


class Watch:
    """The hook of one draw, with its deadline. `cancel` may be called from any thread."""

    def __init__(self, draw_timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._draw_timeout_s = draw_timeout_s
        self._deadline = math.inf
        self._seen_at = math.inf
        self._lock = threading.Lock()
        self.end: End | None = None
        """Why the draw is ended, once it is."""

    @property
    def silent_s(self) -> float:
        """Seconds since the draw began or finished a step; 0 before it began and after it ended."""
        return max(0.0, self._clock() - self._seen_at)

    @contextmanager
    def drawing(self) -> Generator[None]:
        """Count the time of the block as the draw's."""
        self._seen_at = self._clock()
        self._deadline = self._seen_at + self._draw_timeout_s
        try:
            yield
        finally:
            self._seen_at = math.inf

    def cancel(self, end: End) -> None:
        """End the draw after its current step. The first reason counts."""
        with self._lock:
            self.end = self.end or end

    def on_step(self, _step: int, _steps: int, _latents: object) -> None:
        """Note a step. Raises DrawCancelledError if the draw is to end."""
        self._seen_at = self._clock()
        if self._clock() > self._deadline:
            self.cancel(End.OVERDUE)
        if self.end is not None:
            raise DrawCancelledError(self.end)
