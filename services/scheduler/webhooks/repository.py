"""The SQL of webhooks: deliveries, claimed one at a time and fenced by their attempt, and the accounts' secrets."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from shared.database.retention import Expired, older_than, table_of
from shared.database.rounds import claiming
from shared.database.tables import Tune, WebhookDelivery, WebhookSecret


@dataclass(frozen=True)
class ClaimedDelivery:
    """A delivery that this process may call now: `attempt` is this attempt's number, from 1."""

    id: str
    account_id: UUID
    tune_id: str
    url: str
    body: bytes
    attempt: int


async def claim(
    session: AsyncSession, *, claim_s: float, without: Collection[str] = (), passed_over: Collection[UUID] = ()
) -> ClaimedDelivery | None:
    """Claim the delivery that has been due longest, none of `without` and of no account that is passed over.

    None when no delivery is due. Raises BadRowError for a delivery that cannot be claimed.

    The first attempts of a tune's deliveries begin in the order of their events: a delivery waits while an earlier one of
    its tune has had no attempt yet or is being called. A failed attempt does not hold up later deliveries.
    """
    earlier, row = aliased(WebhookDelivery), WebhookDelivery
    blocking = or_(earlier.attempt == 0, earlier.claimed_until > func.now())
    held_up = (
        select(earlier.id)
        .where(earlier.tune_id == row.tune_id, earlier.sequence < row.sequence, earlier.state == "pending", blocking)
        .exists()
    )
    free = or_(row.claimed_until.is_(None), row.claimed_until < func.now())
    # The owner's account is that of the tune.
    others = select(Tune.id).where(Tune.id == row.tune_id, Tune.account_id.in_(passed_over)).exists()
    due = (
        select(row.id)
        .where(and_(row.state == "pending", row.due_at <= func.now(), free, row.id.not_in(without), ~held_up))
        .where(*([~others] if passed_over else []))
        .order_by(row.due_at, row.sequence)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    delivery_id = await session.scalar(due)
    if delivery_id is None:
        return None
    values = {"attempt": row.attempt + 1, "claimed_until": func.now() + timedelta(seconds=claim_s)}
    taken = update(row).where(row.id == delivery_id).values(values).returning(row.tune_id, row.url, row.body, row.attempt)
    with claiming(delivery_id):
        found = (await session.execute(taken)).one()
        account_id = (await session.scalars(select(Tune.account_id).where(Tune.id == found.tune_id))).one()
        return ClaimedDelivery(delivery_id, account_id, found.tune_id, found.url, found.body.encode(), found.attempt)


async def mark_delivered(session: AsyncSession, delivery: ClaimedDelivery, *, status: int) -> None:
    """Record that the receiver accepted the delivery."""
    await _write(session, delivery, {"state": "delivered", "ended_at": func.now(), "last_status": status, "last_error": None})


async def retry_later(
    session: AsyncSession, delivery: ClaimedDelivery, *, pause_s: float, status: int | None, error: str
) -> None:
    """Record a failed attempt; the next one is due after the pause."""
    due_at = func.now() + timedelta(seconds=pause_s)
    await _write(session, delivery, {"due_at": due_at, "last_status": status, "last_error": error})


async def give_up(session: AsyncSession, delivery: ClaimedDelivery, *, status: int | None, error: str) -> None:
    """Record that the delivery failed for good."""
    await _write(session, delivery, {"state": "failed", "ended_at": func.now(), "last_status": status, "last_error": error})


async def deliveries_of(session: AsyncSession, tune_id: str, *, after: int, limit: int) -> list[WebhookDelivery]:
    """Return the deliveries of the tune's events after a sequence number, oldest first."""
    page = select(WebhookDelivery).where(WebhookDelivery.tune_id == tune_id, WebhookDelivery.sequence > after)
    return list(await session.scalars(page.order_by(WebhookDelivery.sequence).limit(limit)))


def expired(kept_s: float) -> Expired:
    """Return the deliveries that ended longer ago than this."""
    old = and_(WebhookDelivery.state != "pending", older_than(WebhookDelivery.ended_at, kept_s))
    return Expired(table_of(WebhookDelivery), old)


async def secret_of(session: AsyncSession, account_id: UUID, *, first: str) -> str:
    """Return the account's secret; `first` becomes its secret if it has none yet."""
    await session.execute(insert(WebhookSecret).values(account_id=account_id, secret=first).on_conflict_do_nothing())
    return (await session.scalars(select(WebhookSecret.secret).where(WebhookSecret.account_id == account_id))).one()


async def previous_secret(session: AsyncSession, account_id: UUID) -> str | None:
    """Return the secret before the last rotation while it still signs."""
    valid = select(WebhookSecret.previous).where(
        WebhookSecret.account_id == account_id, WebhookSecret.previous_until > func.now()
    )
    return await session.scalar(valid)


async def replace_secret(session: AsyncSession, account_id: UUID, new: str, *, overlap: timedelta) -> None:
    """Replace the account's secret, which must exist; the old one signs as well for `overlap`."""
    values = {"secret": new, "previous": WebhookSecret.secret, "previous_until": func.now() + overlap}
    await session.execute(update(WebhookSecret).where(WebhookSecret.account_id == account_id).values(values))


async def _write(session: AsyncSession, delivery: ClaimedDelivery, values: dict[str, object]) -> None:
    """End the claim with these values; write nothing if a later attempt has begun, or the delivery has ended."""
    row = WebhookDelivery
    mine = row.id == delivery.id, row.attempt == delivery.attempt, row.state == "pending"
    await session.execute(update(row).where(*mine).values(claimed_until=None, **values))
