"""The job before the services: brings database, bucket, topics, the first account and the public checkpoints into being.

`python -m deploy.local.bootstrap DATA_DIR`. Every part is idempotent: it runs at each start.
"""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

import migrations
from deploy.local import checkpoints
from deploy.local.paths import StackPaths
from deploy.local.secrets import write_private
from shared.accounts import accounts
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.errors import UnauthorizedError
from shared.http.auth import Authenticator
from shared.messaging import topics
from shared.settings import ServiceSettings

LOCAL_ACCOUNT = "local"
API_KEY_FILE = "api_key"


async def bootstrap(paths: StackPaths, settings: ServiceSettings) -> None:
    """Prepare everything that the services of a local stack expect to find."""
    url = settings.database_url.get_secret_value()
    await _ensure_database(url)
    await asyncio.gather(migrations.upgrade(url), topics.ensure_topics(settings))
    database, blobs = Database.from_settings(settings, application_name="bootstrap"), Blobs.from_settings(settings)
    await blobs.ensure_bucket()
    await _ensure_key(database, paths)
    await checkpoints.register_shipped(database, blobs)
    await blobs.close()
    await database.close()


async def _ensure_database(url: str) -> None:
    head, _, name = url.replace("+asyncpg", "").rpartition("/")
    try:
        connection = await asyncpg.connect(f"{head}/{name}")
    except asyncpg.InvalidCatalogNameError:
        connection = await asyncpg.connect(f"{head}/postgres")
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


async def _ensure_key(database: Database, paths: StackPaths) -> None:
    """Make the local account's key, and a new one when the kept one does not fit the database any more."""
    kept = paths.secrets / API_KEY_FILE
    if kept.exists():
        try:
            await Authenticator(database).authenticate(kept.read_text())
        except UnauthorizedError:
            print(f"the key in {kept} is not valid in this database: making a new one")
        else:
            return
    async with database.begin() as session:
        await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
        account_id = await accounts.create_account(session, LOCAL_ACCOUNT)
        _, secret = await accounts.create_key(session, account_id, name="first", scopes=accounts.USER_SCOPES)
    write_private(kept, secret)


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(bootstrap(StackPaths(Path(sys.argv[1])), ServiceSettings()))  # pyright: ignore[reportCallIssue]
