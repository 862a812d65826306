"""`tunesmith migrate`: bring a database to the newest schema."""

import asyncio

import migrations
from deploy.local.commands.options import DatabaseUrl, DataDir, address, exit_on_database_error


def migrate(database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Bring a database to the newest schema. A local stack does this by itself at each start."""
    url = address("--database-url", database_url, "TUNESMITH_DATABASE_URL", data_dir)
    with exit_on_database_error(url):
        asyncio.run(migrations.upgrade(url))
    print("the schema is up to date")
