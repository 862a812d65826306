"""The job that runs after an install or an upgrade: puts the first API key into a Secret, and registers the shipped checkpoints.

`python -m deploy.cluster.bootstrap SECRET`. Every step is idempotent. Its service account may read and change this one Secret.
"""

import asyncio
import sys

from deploy.cluster.secret import ClusterSecret
from deploy.local import checkpoints
from deploy.local.bootstrap import ensure_key
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.settings import ServiceSettings
from shared.telemetry import configure_logging

FIELD = "api_key"


async def bootstrap(secret: ClusterSecret, settings: ServiceSettings) -> None:
    """Make what an account needs for its first request."""
    database, blobs = Database.from_settings(settings, application_name="bootstrap"), Blobs.from_settings(settings)
    kept = await asyncio.to_thread(secret.get, FIELD)
    key = await ensure_key(database, kept)
    if key != kept:
        await asyncio.to_thread(secret.set, FIELD, key)
    await checkpoints.register_shipped(database, blobs)
    await blobs.close()
    await database.close()


if __name__ == "__main__":
    settings = ServiceSettings()  # pyright: ignore[reportCallIssue] - its fields come from the environment
    configure_logging("bootstrap", settings)
    asyncio.run(bootstrap(ClusterSecret.of_pod(sys.argv[1]), settings))
