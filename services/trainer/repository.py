"""The trainer's SQL beside the leases: the row in which people see this trainer."""

from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Trainer

_FORGOTTEN_AFTER = timedelta(hours=1)


async def record_heartbeat(
    session: AsyncSession,
    trainer: str,
    *,
    host: str,
    device: str,
    memory_bytes: int | None,
    state: str,
    tune_id: str | None,
) -> None:
    """Record that the trainer is alive and what it does; deletes the rows of trainers without a heartbeat for an hour."""
    now = {"device": device, "memory_bytes": memory_bytes, "state": state, "tune_id": tune_id, "seen_at": func.now()}
    row = insert(Trainer).values(id=trainer, host=host, **now)
    await session.execute(row.on_conflict_do_update(index_elements=["id"], set_=now))
    await session.execute(delete(Trainer).where(Trainer.seen_at < func.now() - _FORGOTTEN_AFTER))


async def remove(session: AsyncSession, trainer: str) -> None:
    """Delete the trainer's row."""
    await session.execute(delete(Trainer).where(Trainer.id == trainer))
