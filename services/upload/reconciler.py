"""Finds rows whose next step is late, and starts that step again: no work is lost with a process or a message."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload import repository, transitions
from services.upload.intake.register import Registration
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.blobs import rows as blob_rows
from shared.database import retention
from shared.database.rounds import for_each_row, run_each
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import idempotency
from shared.messaging import inbox, outbox
from shared.telemetry import get_logger

log = get_logger(__name__)

_REPUBLISHED_AT_ONCE = 100
_LATE_S = 600
"""Seconds after its URL has expired in which an upload may still be completed: the PUT may have begun at the last moment."""


class Reconciler:
    """Looks for late rows in the database, each in a transaction of its own: a row that fails stops no other."""

    def __init__(self, database: Database, settings: UploadSettings, registration: Registration, queue: WorkQueue) -> None:
        self._database = database
        self._settings = settings
        self._registration = registration
        self._queue = queue

    async def run_once(self) -> None:
        """Look once for each kind of late row."""
        await run_each("reconciler", self._republish_uploads, self._delete_abandoned_uploads, self._register_trained_tunes)

    async def forget(self) -> None:
        """Delete what is kept for a time only: records of handled events, answers, and the rows of deleted assets and blobs."""
        kept_s = self._settings.deleted_kept_s
        await retention.forget(
            self._database,
            "upload",
            inbox.expired(Context.UPLOAD),
            idempotency.expired(Context.UPLOAD),
            repository.expired_assets(kept_s),
            blob_rows.expired(Context.UPLOAD, kept_s),
        )

    async def _republish_uploads(self) -> None:
        bound_s = self._settings.intake_bound_s

        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.without_verdict(session, bound_s, limit, after=after)

        async def republish(session: AsyncSession, asset_id: str) -> bool:
            asset = await repository.touch_without_verdict(session, asset_id, bound_s)
            if asset is not None:
                log.warning("asset.without_verdict", asset_id=asset.id)
                await outbox.publish(session, Context.UPLOAD, transitions.uploaded(asset))
            return asset is not None

        await for_each_row(self._database, "reconciler.uploads", page, republish, most=_REPUBLISHED_AT_ONCE)

    async def _delete_abandoned_uploads(self) -> None:
        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.never_completed(session, self._settings.upload_url_s + _LATE_S, after=after, limit=limit)

        for asset_id in await for_each_row(self._database, "reconciler.abandoned", page, transitions.abandon):
            log.info("asset.abandoned", asset_id=asset_id)

    async def _register_trained_tunes(self) -> None:
        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.unregistered_tunes(session, self._settings.registration_bound_s, after=after, limit=limit)

        async def register(session: AsyncSession, tune_id: str) -> None:
            tune = await repository.tune(session, tune_id)
            if tune is not None:
                log.warning("tune.unregistered", tune_id=tune_id)
                self._queue.put(tune_id, self._registration.register, tune.account_id)

        await for_each_row(self._database, "reconciler.loras", page, register)
