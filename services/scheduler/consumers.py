"""The scheduler's reactions to the library's events."""

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.service import TuneService
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetDeleted, AssetReady, AssetRejected


def register(consumers: Consumers, service: TuneService) -> None:
    """Add the scheduler's handlers. Each decides by the rows as they are now, so a late or repeated event does no harm."""

    async def check_waiting_tunes(session: AsyncSession, asset_id: str) -> None:
        for tune_id in await repository.waiting_for_file(session, asset_id):
            await service.queue_or_fail_by_verdicts(session, tune_id)

    @consumers.on(AssetReady)
    async def ready(session: AsyncSession, event: AssetReady) -> None:
        if event.tune_id:
            lora = await repository.find_lora(session, event.asset_id)
            if lora is not None:
                await service.end_publishing(session, event.tune_id, lora)
        else:
            await check_waiting_tunes(session, event.asset_id)

    @consumers.on(AssetRejected)
    async def rejected(session: AsyncSession, event: AssetRejected) -> None:
        if event.tune_id:
            await service.fail_publishing(session, event.tune_id, event.reason)
        else:
            await check_waiting_tunes(session, event.asset_id)

    @consumers.on(AssetDeleted)
    async def deleted(session: AsyncSession, event: AssetDeleted) -> None:
        await check_waiting_tunes(session, event.asset_id)
