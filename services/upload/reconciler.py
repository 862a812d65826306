"""Finds rows whose next step is late, and starts that step again: no work is lost with a process or a message."""

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
"""Seconds after its URL has expired in which an upload may still be completed: the PUT may have begun at the last moment."""


class Reconciler:
    """Looks for late rows in the database. Every round is bounded, and changes nothing when nothing is late."""

    def __init__(self, database: Database, settings: UploadSettings, registration: Registration, queue: WorkQueue) -> None:
        self._database = database
        self._settings = settings
        self._registration = registration
        self._queue = queue

    async def run_once(self) -> None:
        """Look once for each kind of late row."""
        await self._republish_uploads()
        await self._delete_abandoned_uploads()
        await self._register_trained_tunes()

    async def _republish_uploads(self) -> None:
        async with self._database.begin() as session:
            for asset in await repository.without_verdict(session, self._settings.intake_bound_s, _BATCH):
                log.warning("asset.without_verdict", asset_id=asset.id)
                await outbox.publish(session, Context.UPLOAD, transitions.uploaded(asset))

    async def _delete_abandoned_uploads(self) -> None:
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
