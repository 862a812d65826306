"""Keys that fail are limited by address, for all replicas together; keys that were valid lately are looked up all the same."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, update

from shared.database import retention
from shared.database.sessions import Database
from shared.database.tables import RequestRow
from shared.errors import LimitError, UnauthorizedError
from shared.http import rate
from shared.http.rate import FailedTries

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
MESSAGE = "more than {limit} keys failed"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


def _replica(database: Database, limit: int) -> FailedTries:
    return FailedTries(database, "failed-keys", limit, MESSAGE)


async def _try(tries: FailedTries, key: bytes, address: str = HERE, *, valid: bool = False) -> str:
    """Return what became of a try: valid, failed or refused."""
    try:
        async with tries.attempt(address, key):
            # As a lookup does, so that others get their turn.
            await asyncio.sleep(0.001)
            _refuse_unless(valid)
    except UnauthorizedError:
        return "failed"
    except LimitError:
        return "refused"
    return "valid"


def _refuse_unless(valid: bool) -> None:
    if not valid:
        raise UnauthorizedError("unknown")


async def test_an_address_whose_keys_failed_too_often_is_refused_with_the_reason(database: Database) -> None:
    tries = _replica(database, 3)
    outcomes = [await _try(tries, bytes([number])) for number in range(5)]

    with pytest.raises(LimitError, match=r"more than 3 keys failed; retry in \d+ s") as refused:
        async with tries.attempt(HERE, b"6"):
            pass

    assert outcomes == ["failed"] * 3 + ["refused"] * 2
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    assert await _try(tries, b"7", ELSEWHERE) == "failed"


async def test_replicas_share_the_limit_also_of_keys_that_arrive_at_once(database: Database) -> None:
    replicas = [_replica(database, 20) for _ in range(3)]

    outcomes = await asyncio.gather(*(_try(replicas[number % 3], b"%d" % number) for number in range(120)))

    # A few more where the tries fall into two minutes of the clock; fewer where a replica keeps a part.
    assert 15 <= outcomes.count("failed") <= 30


async def test_a_key_that_was_valid_lately_is_not_refused_with_its_address(database: Database) -> None:
    tries = _replica(database, 1)
    assert await _try(tries, b"key", valid=True) == "valid"
    assert await _try(tries, b"wrong") == "failed"

    assert await _try(tries, b"key", valid=True) == "valid"
    assert await _try(tries, b"other", valid=True) == "refused"
    # It was revoked.
    assert await _try(tries, b"key") == "failed"
    assert await _try(tries, b"key") == "refused"


async def test_keys_that_are_valid_use_nothing_up(database: Database) -> None:
    tries = _replica(database, 2)

    outcomes = await asyncio.gather(*(_try(tries, b"%d" % number, valid=True) for number in range(20)))

    assert outcomes == ["valid"] * 20


async def test_a_network_of_64_bits_is_one_address(database: Database) -> None:
    tries = _replica(database, 1)
    assert await _try(tries, b"1", "2001:db8:0:1::1") == "failed"

    assert await _try(tries, b"2", "2001:db8:0:1:ffff::2") == "refused"
    assert await _try(tries, b"3", "2001:db8:0:2::1") == "failed"
    assert await _try(tries, b"4", "192.0.2.9") == "failed"
    assert await _try(tries, b"5", "::ffff:192.0.2.9") == "refused"


async def test_the_counts_of_past_minutes_are_deleted(database: Database) -> None:
    tries = _replica(database, 5)
    for address in (HERE, ELSEWHERE):
        await _try(tries, b"wrong", address)
    async with database.begin() as session:
        first = select(RequestRow.account_id).limit(1).scalar_subquery()
        await session.execute(update(RequestRow).where(RequestRow.account_id == first).values(minute=RequestRow.minute - 11))

    await retention.forget(database, "tunes", rate.expired())

    async with database.begin() as session:
        assert await session.scalar(select(func.count()).select_from(RequestRow)) == 1
