"""The end of an asset that will not be ready."""

from services.upload import repository
from services.upload.service import identity
from shared.blobs import rows as blob_rows
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.messaging import events, outbox
from shared.telemetry import get_logger

log = get_logger(__name__)


async def refuse(database: Database, asset: Asset, status: str, reason: str) -> None:
    """Move an uploaded asset to `rejected` or `error` with the reason, unless its verdict has been given."""
    async with database.begin() as session:
        values = {"status": status, "status_details": reason}
        moved = await repository.move(session, asset.id, source=("uploaded",), values=values)
        if moved is None:
            return
        await blob_rows.orphan(session, asset.staging_key or "")
        rejected = events.AssetRejected(**identity(moved), version=moved.version, reason=reason)
        await outbox.publish(session, Context.UPLOAD, rejected)
    log.info("asset.rejected", asset_id=asset.id, asset_type=asset.asset_type, status=status, reason=reason)
