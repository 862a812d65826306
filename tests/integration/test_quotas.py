"""Limits of an account are exact, for concurrent requests too."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from shared.accounts import accounts, quotas
from shared.database.sessions import Database
from shared.database.tables import Account, AccountUsage, Asset, Generation
from shared.errors import LimitError, UnavailableError
from shared.ids import new_id
from shared.settings import ApiSettings


class World:
    def __init__(self, database: Database, settings: ApiSettings, account_id: UUID) -> None:
        self.database = database
        self.settings = settings
        self.account_id = account_id

    async def ask_for_images(self, number: int) -> None:
        async with self.database.begin() as session:
            await quotas.admit_images(session, self.account_id, self.settings, number)
            inputs = {"seeds": list(range(number))}
            session.add(Generation(id=new_id("gen"), account_id=self.account_id, engine="x", affinity="x", inputs=inputs))

    async def store(self, size_bytes: int, account_id: UUID | None = None) -> None:
        account_id = account_id or self.account_id
        async with self.database.begin() as session:
            await quotas.admit_bytes(session, account_id, self.settings, size_bytes)
            asset_id = new_id("asset")
            session.add(
                Asset(
                    id=asset_id,
                    account_id=account_id,
                    asset_type="file",
                    name=asset_id,
                    status="uploaded",
                    data={},
                    size_bytes=size_bytes,
                )
            )


@pytest.fixture
async def world(make_settings: Callable[..., Any], database_url: str) -> AsyncIterator[World]:
    database = Database(database_url)
    async with database.begin() as session:
        account_id = await accounts.create_account(session, "studio")
    yield World(database, make_settings(ApiSettings, max_images_in_flight=10, max_stored_bytes=100), account_id)
    await database.close()


async def _outcomes(*calls: Any) -> list[str]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(result is None or isinstance(result, LimitError) for result in results), results
    return ["refused" if result else "admitted" for result in results]


async def test_of_many_concurrent_requests_as_many_are_admitted_as_fit(world: World) -> None:
    outcomes = await _outcomes(*(world.ask_for_images(3) for _ in range(8)))

    assert sorted(outcomes) == ["admitted"] * 3 + ["refused"] * 5
    await world.ask_for_images(1)
    with pytest.raises(
        LimitError, match="max_images_in_flight: 10 images are in flight and 1 more are requested; 10 are allowed"
    ):
        await world.ask_for_images(1)


async def test_finished_images_do_not_count(world: World) -> None:
    await world.ask_for_images(10)
    async with world.database.begin() as session:
        done = {"state": "succeeded", "result": {}, "finished_at": func.now()}
        await session.execute(update(Generation).values(done))

    await world.ask_for_images(10)


async def test_bytes_are_counted_exactly(world: World) -> None:
    outcomes = await _outcomes(*(world.store(30) for _ in range(6)))

    assert sorted(outcomes) == ["admitted"] * 3 + ["refused"] * 3
    await world.store(10)
    with pytest.raises(
        LimitError, match="max_stored_bytes: 100 bytes are stored and 0 more are needed; 100 are allowed"
    ) as refused:
        await world.store(0)
    assert refused.value.headers == {"Retry-After": "3600"}


async def test_deleted_assets_do_not_count(world: World) -> None:
    await world.store(100)
    async with world.database.begin() as session:
        await session.execute(update(Asset).values(status="deleted", deleted_at=func.now()))

    await world.store(100)


async def test_every_change_of_an_asset_is_counted_whoever_writes_it(world: World) -> None:
    async def usage() -> Any:
        async with world.database.begin() as session:
            return (await session.execute(select(AccountUsage.assets, AccountUsage.bytes))).one()

    await asyncio.gather(*(world.store(10) for _ in range(5)))
    assert await usage() == (5, 50)
    async with world.database.begin() as session:
        ids = sorted(await session.scalars(select(Asset.id)))
        await session.execute(update(Asset).where(Asset.id.in_(ids[:2])).values(copy_bytes=3, size_bytes=8))
        await session.execute(update(Asset).where(Asset.id == ids[0]).values(reserved_bytes=7))
        await session.execute(update(Asset).values(description="no change of bytes"))
    assert await usage() == (5, 59)
    async with world.database.begin() as session:
        await session.execute(update(Asset).where(Asset.id.in_(ids[:2])).values(status="deleted", deleted_at=func.now()))
        await session.execute(delete(Asset).where(Asset.id.in_(ids[1:3])))
    assert await usage() == (2, 20)
    # What is deleted counts no second time when its row goes.
    async with world.database.begin() as session:
        await session.execute(delete(Asset).where(Asset.id == ids[0]))
    assert await usage() == (2, 20)


async def test_an_accounts_own_limit_replaces_the_setting(world: World) -> None:
    async with world.database.begin() as session:
        other = await accounts.create_account(session, "other")
        await session.execute(update(Account).where(Account.id == other).values(max_stored_bytes=1000))
    await world.store(100)

    await world.store(1000, other)

    async with world.database.begin() as session:
        total = await session.scalar(select(func.sum(Asset.size_bytes)))
    assert total == 1100


async def test_an_account_that_is_locked_for_long_gets_an_error_and_keeps_no_connection(world: World) -> None:
    began = time.monotonic()
    async with world.database.begin() as holder:
        await quotas.admit_bytes(holder, world.account_id, world.settings, 1)
        with pytest.raises(UnavailableError, match="another request of the account has held its limits for 2 s") as refused:
            await world.store(1)

    assert refused.value.headers["Retry-After"] == "1"
    assert time.monotonic() - began < 10
