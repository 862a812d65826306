"""The facts that upload listens to."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload.intake import Intake
from services.upload.registration import Registration
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.consumer import Consumers
from shared.db import Database
from shared.events import AssetUploaded, TuneTrained
from shared.tables import Context


def create(
    database: Database, settings: UploadSettings, queue: WorkQueue, intake: Intake, registration: Registration
) -> Consumers:
    """Build the consumer group `upload`. Its handlers only queue work: see WorkQueue for why that loses nothing."""
    consumers = Consumers(context=Context.UPLOAD, group="upload", database=database, settings=settings)

    @consumers.on(AssetUploaded, gate=queue.room)
    async def check_upload(_session: AsyncSession, fact: AssetUploaded) -> None:
        queue.put(fact.asset_id, intake.check)

    @consumers.on(TuneTrained, gate=queue.room)
    async def register_lora(_session: AsyncSession, fact: TuneTrained) -> None:
        queue.put(fact.tune_id, registration.register)

    return consumers
