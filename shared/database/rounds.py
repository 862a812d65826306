"""Rounds of background tasks over rows: a row that fails is logged, counted and passed over, and stops no other."""

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.sessions import Database
from shared.failures import is_unavailable
from shared.telemetry import get_logger

log = get_logger(__name__)

PAGE = 100
_PASSED_OVER_S = 60.0
_FAILED = Counter("tunesmith_rows_failed", "Rows that a background task could not handle and passed over.", ["task"])

Page = Callable[[AsyncSession, str, int], Awaitable[Sequence[str]]]
"""Returns up to so many keys after the given one, in their order."""
Handle = Callable[[AsyncSession, str], Awaitable[object]]


class BadRowError(Exception):
    """A claim picked a row that it cannot take; the cause says why."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the row {key} cannot be claimed")
        self.key = key


class PassedOver:
    """Rows that could not be claimed, which this process does not pick again for a while: the next rows come first."""

    def __init__(self, task: str, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._database = database
        self._clock = clock
        self._until: dict[str, float] = {}

    def keys(self) -> list[str]:
        """Return the keys of the rows to leave out now."""
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}
        return list(self._until)

    async def add(self, error: BadRowError) -> None:
        """Leave a row out for a while. Raises when the database is unavailable: then the row is not at fault."""
        await pass_over(self._database, self._task, error.key, error.__cause__ or error)
        self._until[error.key] = self._clock() + _PASSED_OVER_S


@contextmanager
def claiming(key: str) -> Generator[None]:
    """Raise BadRowError for errors in the block, except those that may pass."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise
        raise BadRowError(key) from error


async def for_each_row(database: Database, task: str, page: Page, handle: Handle, *, most: int | None = None) -> list[str]:
    """Handle the rows of every page, each in a transaction of its own; return the keys of those for which `handle` was truthy.

    Pages are read by key, so that rows that fail in every round hide no others. Ends after `most` such rows. Raises only when
    the database is unavailable, or a page cannot be read.
    """
    done: list[str] = []
    after = ""
    while True:
        async with database.begin() as session:
            keys = await page(session, after, PAGE)
        for key in keys:
            try:
                async with database.begin() as session:
                    handled = await handle(session, key)
            except Exception as error:  # noqa: BLE001 - one row must not stop the others
                await pass_over(database, task, key, error)
                continue
            if handled:
                done.append(key)
            if len(done) == most:
                return done
        if len(keys) < PAGE:
            return done
        after = keys[-1]


async def in_batch(
    database: Database, task: str, keys: Sequence[str], handle: Callable[[AsyncSession, Sequence[str]], Awaitable[Sequence[str]]]
) -> list[str]:
    """Handle rows in one transaction, and return what `handle` returns; when that fails, handle each in one of its own."""
    if not keys:
        return []
    try:
        async with database.begin() as session:
            return list(await handle(session, keys))
    except Exception as error:  # noqa: BLE001 - one row must not stop the others
        if len(keys) == 1:
            await pass_over(database, task, keys[0], error)
            return []
        await database.ping()
        return [found for key in keys for found in await in_batch(database, task, [key], handle)]


async def run_each(task: str, *steps: Callable[[], Awaitable[object]]) -> None:
    """Run the steps of a round one after the other; raise the first error after all of them have run."""
    errors: list[Exception] = []
    for step in steps:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    for error in errors[1:]:
        log.warning("background.failed", task=task, error=repr(error))
    if errors:
        raise errors[0]


async def pass_over(database: Database, task: str, key: str, error: BaseException) -> None:
    """Log and count a row that could not be handled. Raises when the database is unavailable: then every row would fail."""
    await database.ping()
    _FAILED.labels(task).inc()
    log.warning("row.failed", task=task, key=key, error=repr(error))
