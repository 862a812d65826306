"""The migrations of the database, and how to apply them."""

import asyncio
from pathlib import Path
from ssl import SSLContext

from alembic import command
from alembic.config import Config


async def upgrade(database_url: str, tls: SSLContext | None = None) -> None:
    """Upgrade the database to the newest schema.

    Concurrent upgrades are safe: the second waits for the first one's advisory lock, and then has nothing to do.
    """
    await asyncio.to_thread(command.upgrade, config(database_url, tls), "head")


def config(database_url: str, tls: SSLContext | None = None) -> Config:
    """Return Alembic's configuration for a database. There is no alembic.ini, because the URL is a setting."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["database_url"] = database_url
    made.attributes["tls"] = tls
    return made
