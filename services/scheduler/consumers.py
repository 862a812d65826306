"""What the scheduler learns from the library."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.service import TuneService
from shared.database.tables import Asset
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetDeleted, AssetReady, AssetRejected


def register(consumers: Consumers, service: TuneService) -> None:
    """Add the scheduler's handlers. Each looks at the rows as they are, so a late or repeated event changes nothing."""

    async def look_at_waiting(session: AsyncSession, asset_id: str) -> None:
        for tune_id in await repository.waiting_for_file(session, asset_id):
            await service.settle(session, tune_id)

    @consumers.on(AssetReady)
    async def ready(session: AsyncSession, event: AssetReady) -> None:
        if event.tune_id:
            asset = await session.get(Asset, event.asset_id)
            if asset is not None:
                await service.registered(session, event.tune_id, asset)
        else:
            await look_at_waiting(session, event.asset_id)

    @consumers.on(AssetRejected)
    async def rejected(session: AsyncSession, event: AssetRejected) -> None:
        if event.tune_id:
            await service.not_registered(session, event.tune_id, event.reason)
        else:
            await look_at_waiting(session, event.asset_id)

    @consumers.on(AssetDeleted)
    async def deleted(session: AsyncSession, event: AssetDeleted) -> None:
        await look_at_waiting(session, event.asset_id)
