"""Tasks that run as long as their process: relays, consumers, reapers, reconcilers."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from shared.failures import is_unavailable, is_unmigrated
from shared.telemetry import get_logger

log = get_logger(__name__)

_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 5.0
_STEADY_S = 45.0
"""A task that ran for so long was well: no attempt on a dependency that does not answer takes as long."""
_UNMIGRATED = "the database lacks a table or a column: run `tunesmith migrate`"


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
            waiting = False
            while not is_cancelled():
                try:
                    await task()
                except Exception as error:  # noqa: BLE001 - a periodic task must outlive any of its errors
                    waiting = _log_waiting(name, error, waiting=waiting)
                    if not waiting:
                        log.warning("background.failed", task=name, error=repr(error))
                else:
                    waiting = False
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
    backoff_s, waiting = _FIRST_BACKOFF_S, False
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await task()
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                raise
            if clock() - began > _STEADY_S:
                backoff_s, waiting = _FIRST_BACKOFF_S, False
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            waiting = _log_waiting(name, error, waiting=waiting)
            if not waiting:
                log.exception("background.crashed", task=name, restart_in_s=backoff_s)
            await asyncio.sleep(backoff_s)
        else:
            return


def _log_waiting(name: str, error: BaseException, *, waiting: bool) -> bool:
    """Return whether the task waits for a dependency or for the migrations; log that unless it was waiting already.

    An outage gets one line a task, without a traceback: dozens of tasks fail in each round of one.
    """
    unmigrated = is_unmigrated(error)
    if not (unmigrated or is_unavailable(error)):
        return False
    if not waiting:
        log.warning("background.waiting", task=name, error=_UNMIGRATED if unmigrated else repr(error))
    return True
