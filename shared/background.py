"""Tasks that run as long as their process: relays, consumers, reapers, reconcilers."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from shared.failures import is_unmigrated
from shared.telemetry import get_logger

log = get_logger(__name__)

_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 5.0
_STEADY_S = 30.0


class Background:
    """A context that runs named tasks; one that raises is logged and started again after a growing pause.

    Its end cancels them all and waits at most `stop_timeout_s` seconds for them.
    """

    def __init__(self, *, stop_timeout_s: float = 10.0) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Start empty."""
        return self

    def run(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Keep `task` running under this name, until it returns by itself."""
        self._tasks[name] = asyncio.create_task(_keep_running(name, task), name=name)

    def every(self, name: str, period_s: float, task: Callable[[], Awaitable[object]]) -> None:
        """Call `task` at once, and again `period_s` seconds after each call ended; its errors are logged."""

        async def loop() -> None:
            while not is_cancelled():
                try:
                    await task()
                except Exception as error:  # noqa: BLE001 - a periodic task must outlive any of its errors
                    log.warning("background.failed", task=name, error=repr(error))
                if not is_cancelled():
                    await asyncio.sleep(period_s)

        self.run(name, loop)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Cancel every task and wait for them, for at most `stop_timeout_s` seconds."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            ended, late = await asyncio.wait(self._tasks.values(), timeout=self._stop_timeout_s)
            for task in ended:
                if not task.cancelled() and (failure := task.exception()):
                    log.warning("background.failed", task=task.get_name(), error=repr(failure))
            for task in late:
                log.warning("background.stuck", task=task.get_name(), after_s=self._stop_timeout_s)


def is_cancelled() -> bool:
    """Say whether the current task was cancelled.

    Its error does not tell: some libraries leak the CancelledError of tasks of their own, others turn ours into another error.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _keep_running(name: str, task: Callable[[], Awaitable[None]]) -> None:
    backoff_s = _FIRST_BACKOFF_S
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await task()
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                raise
            backoff_s = _FIRST_BACKOFF_S if clock() - began > _STEADY_S else min(backoff_s * 2, _MAX_BACKOFF_S)
            if is_unmigrated(error):
                # Services may start before the migrations have run: one line is enough, without a traceback.
                log.warning(
                    "background.waiting", task=name, error="the database lacks a table or a column: run `tunesmith migrate`"
                )
            else:
                log.exception("background.crashed", task=name, restart_in_s=backoff_s)
            await asyncio.sleep(backoff_s)
        else:
            return
