"""The job that runs before the services: creates database, bucket, topics, the first account and the public checkpoints.

`python -m deploy.local.bootstrap DATA_DIR`. It runs at each start, so every step is idempotent.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, cast

import asyncpg

import migrations
from deploy.local import checkpoints
from deploy.local.paths import StackPaths
from deploy.local.secrets import write_private
from shared.accounts import accounts
from shared.blobs.store import Blobs
from shared.database.sessions import Database, tls_arguments, tls_of
from shared.errors import UnauthorizedError
from shared.http.auth import Authenticator
from shared.messaging import topics
from shared.settings import ServiceSettings

LOCAL_ACCOUNT = "local"
_connect = cast("Any", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType] - asyncpg annotates no parameters


async def bootstrap(paths: StackPaths, settings: ServiceSettings) -> None:
    """Create what the services of a local stack expect to find."""
    await prepare(settings)
    database, blobs = Database.from_settings(settings, application_name="bootstrap"), Blobs.from_settings(settings)
    kept = paths.api_key.read_text() if paths.api_key.exists() else None
    key = await ensure_key(database, kept)
    if key != kept:
        paths.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(paths.api_key, key)
    await checkpoints.register_shipped(database, blobs)
    await blobs.close()
    await database.close()


async def prepare(settings: ServiceSettings) -> None:
    """Bring database, topics and bucket to what this release expects."""
    url, tls = settings.database_url.get_secret_value(), tls_of(settings)
    await _ensure_database(url, tls_arguments(tls))
    await asyncio.gather(migrations.upgrade(url, tls), topics.ensure_topics(settings))
    blobs = Blobs.from_settings(settings)
    await blobs.ensure_bucket()
    await blobs.close()


async def ensure_key(database: Database, kept: str | None) -> str:
    """Return the key of the local account: the kept one, or a new one if none is kept that this database knows."""
    if kept:
        try:
            await Authenticator(database).authenticate(kept)
        except UnauthorizedError:
            print("the kept key is not valid in this database: creating a new one")
        else:
            return kept
    async with database.begin() as session:
        await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
        account_id = await accounts.create_account(session, LOCAL_ACCOUNT)
        _, secret = await accounts.create_key(session, account_id, name="first", scopes=accounts.USER_SCOPES)
    return secret


async def _ensure_database(url: str, arguments: dict[str, Any]) -> None:
    """Create the database if the server has none of this name."""
    head, _, name = url.replace("+asyncpg", "").rpartition("/")
    try:
        connection = await _connect(f"{head}/{name}", **arguments)
    except asyncpg.InvalidCatalogNameError:
        connection = await _connect(f"{head}/postgres", **arguments)
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(bootstrap(StackPaths(Path(sys.argv[1])), ServiceSettings()))  # pyright: ignore[reportCallIssue] - its fields come from the environment
