"""A process that dies by kill -9 at a chosen place: `python -m tests.support.crash_point PLACE TUNE_ID EPOCH`.

It moves a claimed tune to training and relays the event. The places are `before_commit` and `after_commit` of that change,
`after_produce` (the broker and the outbox both have the event) and `after_delete` (the row is deleted, not committed).
"""

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from shared.database.sessions import Database
from shared.database.tables import Context
from shared.messaging.relay import Relay
from shared.settings import ServiceSettings
from shared.tunes import leases
from shared.tunes.leases import Lease


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_delete(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    if statement.startswith("DELETE FROM outbox_tunes"):
        die()


async def main(place: str, tune_id: str, epoch: int) -> None:
    settings = ServiceSettings()  # pyright: ignore[reportCallIssue]
    database = Database.from_settings(settings, application_name="doomed")
    async with database.begin() as session:
        await leases.begin_training(session, Lease(tune_id, epoch), step=0)
        if place == "before_commit":
            die()
    if place == "after_commit":
        die()
    moment = {"after_produce": "before_cursor_execute", "after_delete": "after_cursor_execute"}[place]
    event.listen(database.engine.sync_engine, moment, die_at_delete)
    await Relay(database, Context.TUNES, settings).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
