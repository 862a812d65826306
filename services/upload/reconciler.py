"""Finds rows that have waited too long for something, and sets it going again: the database alone rebuilds what is in flight."""

from services.upload import repository, transitions
from services.upload.intake.register import Registration
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.messaging import outbox
from shared.telemetry import get_logger

log = get_logger(__name__)

_BATCH = 100
_LATE_S = 600
"""An upload URL lives until the upload ends; a client that used it at the last moment still gets to complete it."""


class Reconciler:
    """Looks into the database once in a while; every round is bounded, and harmless when nothing is wrong."""

    def __init__(self, database: Database, settings: UploadSettings, registration: Registration, queue: WorkQueue) -> None:
        self._database = database
        self._settings = settings
        self._registration = registration
        self._queue = queue

    async def run_once(self) -> None:
        """Go through all that may have been lost."""
        await self._say_uploads_again()
        await self._end_abandoned_uploads()
        await self._register_trained_tunes()

    async def _say_uploads_again(self) -> None:
        async with self._database.begin() as session:
            for asset in await repository.without_verdict(session, self._settings.intake_bound_s, _BATCH):
                log.warning("asset.without_verdict", asset_id=asset.id)
                await outbox.publish(session, Context.UPLOAD, transitions.uploaded(asset))

    async def _end_abandoned_uploads(self) -> None:
        async with self._database.begin() as session:
            late = await repository.never_completed(session, self._settings.upload_url_s + _LATE_S, _BATCH)
            for asset_id in late:
                if await transitions.abandon(session, asset_id):
                    log.info("asset.abandoned", asset_id=asset_id)

    async def _register_trained_tunes(self) -> None:
        async with self._database.begin() as session:
            waiting = await repository.unregistered_tunes(session, self._settings.registration_bound_s, _BATCH)
        for tune_id in waiting:
            log.warning("tune.unregistered", tune_id=tune_id)
            self._queue.put(tune_id, self._registration.register)
