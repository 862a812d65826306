"""The webhook deliveries' SQL: claimed one at a time, fenced by their attempt."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from shared.database.tables import Tune, WebhookDelivery


@dataclass(frozen=True)
class Delivery:
    """A claimed delivery: `attempt` is this one's number, from 1."""

    id: str
    account_id: UUID
    tune_id: str
    url: str
    body: bytes
    attempt: int


async def claim(session: AsyncSession, *, claim_s: float) -> Delivery | None:
    """Claim the delivery that has been due longest; None when there is none.

    A tune's deliveries begin in the order of their events: one waits while an earlier one of its tune has not been tried
    yet or is being tried. One that was tried in vain holds up nobody.
    """
    earlier, row = aliased(WebhookDelivery), WebhookDelivery
    being_tried = or_(earlier.attempt == 0, earlier.claimed_until > func.now())
    held_up = (
        select(earlier.id)
        .where(earlier.tune_id == row.tune_id, earlier.sequence < row.sequence, earlier.state == "pending", being_tried)
        .exists()
    )
    free = or_(row.claimed_until.is_(None), row.claimed_until < func.now())
    due = (
        select(row.id)
        .where(and_(row.state == "pending", row.due_at <= func.now(), free, ~held_up))
        .order_by(row.due_at, row.sequence)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    delivery_id = await session.scalar(due)
    if delivery_id is None:
        return None
    values = {"attempt": row.attempt + 1, "claimed_until": func.now() + timedelta(seconds=claim_s)}
    taken = update(row).where(row.id == delivery_id).values(values).returning(row.tune_id, row.url, row.body, row.attempt)
    found = (await session.execute(taken)).one()
    account_id = (await session.scalars(select(Tune.account_id).where(Tune.id == found.tune_id))).one()
    return Delivery(delivery_id, account_id, found.tune_id, found.url, found.body.encode(), found.attempt)


async def delivered(session: AsyncSession, delivery: Delivery, *, status: int) -> None:
    """Note that the receiver has it."""
    await _write(session, delivery, {"state": "delivered", "ended_at": func.now(), "last_status": status, "last_error": None})


async def try_again(session: AsyncSession, delivery: Delivery, *, pause_s: float, status: int | None, error: str) -> None:
    """Put it off."""
    due_at = func.now() + timedelta(seconds=pause_s)
    await _write(session, delivery, {"due_at": due_at, "last_status": status, "last_error": error})


async def give_up(session: AsyncSession, delivery: Delivery, *, status: int | None, error: str) -> None:
    """Note that it will not be tried again."""
    await _write(session, delivery, {"state": "failed", "ended_at": func.now(), "last_status": status, "last_error": error})


async def deliveries_of(session: AsyncSession, tune_id: str, *, after: int, limit: int) -> list[WebhookDelivery]:
    """Return the tune's deliveries that tell of events after a sequence number, oldest first."""
    page = select(WebhookDelivery).where(WebhookDelivery.tune_id == tune_id, WebhookDelivery.sequence > after)
    return list(await session.scalars(page.order_by(WebhookDelivery.sequence).limit(limit)))


async def forget(session: AsyncSession, *, older_than_s: float) -> None:
    """Delete what ended long ago."""
    old = WebhookDelivery.ended_at < func.now() - timedelta(seconds=older_than_s)
    await session.execute(delete(WebhookDelivery).where(WebhookDelivery.state != "pending", old))


async def _write(session: AsyncSession, delivery: Delivery, values: dict[str, object]) -> None:
    row = WebhookDelivery
    mine = row.id == delivery.id, row.attempt == delivery.attempt, row.state == "pending"
    await session.execute(update(row).where(*mine).values(claimed_until=None, **values))
