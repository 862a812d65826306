"""The job that runs before an install or an upgrade: brings schema, topics and bucket to what the services expect.

`python -m deploy.cluster.migrate`. Every step is idempotent.
"""

import asyncio

from deploy.local.bootstrap import prepare
from shared.settings import ServiceSettings
from shared.telemetry import configure_logging

if __name__ == "__main__":
    settings = ServiceSettings()  # pyright: ignore[reportCallIssue] - its fields come from the environment
    configure_logging("migrate", settings)
    asyncio.run(prepare(settings))
