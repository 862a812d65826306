"""Rounds of background tasks over rows: a row that fails is logged, counted and passed over, and stops no other."""

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.sessions import Database
from shared.telemetry import get_logger

log = get_logger(__name__)

PAGE = 100
_FAILED = Counter("tunesmith_rows_failed", "Rows that a background task could not handle and passed over.", ["task"])

Page = Callable[[AsyncSession, str, int], Awaitable[Sequence[str]]]
"""Returns up to so many keys after the given one, in their order."""
Handle = Callable[[AsyncSession, str], Awaitable[object]]


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


async def pass_over(database: Database, task: str, key: str, error: Exception) -> None:
    """Log and count a row that could not be handled. Raises when the database is unavailable: then every row would fail."""
    await database.ping()
    _FAILED.labels(task).inc()
    log.warning("row.failed", task=task, key=key, error=repr(error))
