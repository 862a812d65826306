"""The events that the upload service consumes."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload.intake.check import Intake
from services.upload.intake.register import Registration
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetUploaded, TuneTrained


def create(
    database: Database,
    settings: UploadSettings,
    uploads: WorkQueue,
    loras: WorkQueue,
    intake: Intake,
    registration: Registration,
) -> Consumers:
    """Build the consumer group `upload`. Its handlers only queue work; `WorkQueue` says why that loses no work."""
    consumers = Consumers(context=Context.UPLOAD, group="upload", database=database, settings=settings)

    @consumers.on(AssetUploaded, gate=uploads.room)
    async def check_upload(_session: AsyncSession, event: AssetUploaded) -> None:
        uploads.put(event.asset_id, intake.check, UUID(event.account_id))

    @consumers.on(TuneTrained, gate=loras.room)
    async def register_lora(_session: AsyncSession, event: TuneTrained) -> None:
        loras.put(event.tune_id, registration.register, UUID(event.account_id))

    return consumers
