"""An account may send a limited number of requests a minute to all replicas of a service together."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from shared.database.sessions import Database
from shared.errors import LimitError
from shared.http.rate import RequestRate


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


async def _allowed(rates: list[RequestRate], limit: int, tries: int) -> int:
    account = uuid4()
    calls = [rates[number % len(rates)].count(account, limit) for number in range(tries)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(answer is None or isinstance(answer, LimitError) for answer in answers), answers
    return sum(answer is None for answer in answers)


async def test_a_request_over_the_limit_is_refused_with_the_limit_and_a_time(database: Database) -> None:
    rate, account = RequestRate(database, "upload", 1000), uuid4()
    with pytest.raises(LimitError, match=r"max_requests_per_minute: this account may send 3 requests a minute") as refused:
        for _ in range(7):
            await rate.count(account, 3)

    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("limit", [3, 200])
async def test_replicas_together_allow_no_more_than_the_limit(database: Database, limit: int) -> None:
    replicas = [RequestRate(database, "upload", 1) for _ in range(3)]

    allowed = await _allowed(replicas, limit, 4 * limit)

    # A few more where the calls fall into two minutes of the clock: of the minute before, a smaller part counts.
    assert 0.9 * limit <= allowed <= 1.5 * limit


async def test_accounts_and_services_are_counted_separately(database: Database) -> None:
    account = uuid4()
    for service in ("upload", "scheduler"):
        await RequestRate(database, service, 1).count(account, None)
    await RequestRate(database, "upload", 1).count(uuid4(), None)


async def test_an_account_that_may_send_nothing_is_refused(database: Database) -> None:
    with pytest.raises(LimitError, match="may send 0 requests"):
        await RequestRate(database, "upload", 5).count(uuid4(), 0)
