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
