"""The migrations make the schema that the table classes describe."""

import asyncio
import sys

from alembic import command
from sqlalchemy import text

import migrations
from shared.database.sessions import Database


async def test_the_migrations_lead_to_the_tables(database_url: str) -> None:
    await asyncio.to_thread(command.check, migrations.config(database_url))


async def test_two_upgrades_at_once_are_safe(database_url: str) -> None:
    await asyncio.to_thread(command.downgrade, migrations.config(database_url), "base")

    # Two processes, as two deployments are: Alembic's module state allows one upgrade a process.
    script = f"import asyncio, migrations; asyncio.run(migrations.upgrade({database_url!r}))"
    both = [await asyncio.create_subprocess_exec(sys.executable, "-c", script) for _ in range(2)]
    assert [await upgrade.wait() for upgrade in both] == [0, 0]

    database = Database(database_url)
    await database.ping()
    await database.close()
    await asyncio.to_thread(command.check, migrations.config(database_url))


async def test_messages_that_wait_in_an_outbox_outlive_the_rename_of_their_id(database_url: str) -> None:
    config, database = migrations.config(database_url), Database(database_url)
    await asyncio.to_thread(command.downgrade, config, "0004")
    async with database.begin() as session:
        row = "(event_id, topic, key, headers, body) VALUES (gen_random_uuid(), 'tunes', 'tune_1', '{}', 'x')"
        waiting = await session.scalar(text(f"INSERT INTO outbox_tunes {row} RETURNING event_id"))

    await asyncio.to_thread(command.upgrade, config, "0005")
    async with database.begin() as session:
        upgraded = await session.scalar(text("SELECT message_id FROM outbox_tunes"))
    await asyncio.to_thread(command.downgrade, config, "0004")
    async with database.begin() as session:
        downgraded = await session.scalar(text("SELECT event_id FROM outbox_tunes"))
    await database.close()

    assert waiting == upgraded == downgraded


async def test_what_accounts_have_stored_is_counted_by_the_upgrade(database_url: str) -> None:
    config, database = migrations.config(database_url), Database(database_url)
    await asyncio.to_thread(command.downgrade, config, "0010")
    async with database.begin() as session:
        account = await session.scalar(
            text("INSERT INTO accounts (id, name, is_platform) VALUES (gen_random_uuid(), 'a', false) RETURNING id")
        )
        columns = "id, account_id, asset_type, name, description, is_public, status_details, data, version"
        columns += ", size_bytes, reserved_bytes, status, deleted_at"
        for name, end in (("one", "'uploaded', NULL"), ("two", "'ready_to_upload', NULL"), ("three", "'deleted', now()")):
            values = f"'{name}', :account, 'file', '{name}', '', false, '', '{{}}', 1, 10, 5, {end}"
            await session.execute(text(f"INSERT INTO assets ({columns}) VALUES ({values})"), {"account": account})

    await asyncio.to_thread(command.upgrade, config, "0011")
    async with database.begin() as session:
        counted = (await session.execute(text("SELECT account_id, assets, bytes FROM account_usage"))).all()
    await database.close()

    assert [tuple(row) for row in counted] == [(account, 2, 30)]
