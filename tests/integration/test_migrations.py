"""The migrations and the table classes say the same."""

import asyncio

from alembic import command

import migrations
from shared.db import Database


async def test_the_migrations_lead_to_the_tables(database_url: str) -> None:
    await asyncio.to_thread(command.check, migrations.config(database_url))


async def test_two_upgrades_at_once_are_safe(database_url: str) -> None:
    await asyncio.to_thread(command.downgrade, migrations.config(database_url), "base")

    await asyncio.gather(migrations.upgrade(database_url), migrations.upgrade(database_url))

    database = Database(database_url)
    await database.ping()
    await database.close()
    await asyncio.to_thread(command.check, migrations.config(database_url))
