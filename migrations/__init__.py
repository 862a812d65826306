"""The schema's history, and how to bring a database up to date."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

HEAD = "head"


async def upgrade(database_url: str, revision: str = HEAD) -> None:
    """Bring the database to a revision.

    Two that run at once are safe: the second waits for the first's advisory lock and finds nothing left to do.
    """
    await asyncio.to_thread(command.upgrade, config(database_url), revision)


def config(database_url: str) -> Config:
    """Return Alembic's configuration for a database; there is no alembic.ini, since the URL is a setting."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["database_url"] = database_url
    return made
