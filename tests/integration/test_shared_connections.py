"""Requests of one account leave connections to the other accounts, and do not wait long for a lock."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.database.sessions import Database
from shared.errors import LimitError
from shared.failures import is_locked
from shared.settings import ApiSettings
from shared.shares import current_account


async def test_requests_of_one_account_leave_connections_to_the_others(database_url: str) -> None:
    database = Database(database_url, pool_size=4, wait_s=0.2)
    busy, calm = uuid4(), uuid4()

    async def held(account_id: UUID | None, stack: AsyncExitStack) -> None:
        before = current_account.set(account_id)
        session = await stack.enter_async_context(database.begin())
        await session.connection()
        current_account.reset(before)

    async with AsyncExitStack() as stack:
        for _ in range(2):
            await held(busy, stack)
        with pytest.raises(LimitError, match=r"the account.s other requests took 0\.2 s"):
            await held(busy, stack)
        await held(calm, stack)
    await database.close()


async def test_a_request_does_not_wait_for_a_lock_as_long_as_background_work_may(
    make_settings: Callable[..., ApiSettings], database_url: str
) -> None:
    settings = make_settings(ApiSettings)
    requests, background = Database.for_requests(settings, application_name="t"), Database(database_url)
    async with background.begin() as holder:
        await holder.execute(text("SELECT pg_advisory_xact_lock(7)"))
        with pytest.raises(DBAPIError) as failure:
            async with requests.begin() as waiting:
                await waiting.execute(text("SELECT pg_advisory_xact_lock(7)"))
        assert is_locked(failure.value)
    await requests.close()
    await background.close()
