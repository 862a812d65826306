"""Changes a tune and publishes its event: the row, the log of its events and the outbox, in one transaction.

Every change that clients can see goes through `move`. It raises the tune's version by one, which is also the event's sequence
number: so a tune's events have no gap, and no two writers use one number.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.accounts import names
from shared.blobs import rows as blob_rows
from shared.database.tables import Checkpoint, Context, Sample, Tune, TuneEvent
from shared.failures import storable
from shared.messaging import outbox
from shared.messaging.events import Event, TuneCancelled, TuneFailed
from shared.states import TRANSITIONS, TuneState
from shared.tunes import webhooks

CHANNEL = "tune_events"
"""The channel of the notification about a new event; its payload is the tune's id."""
NO_LEASE: dict[str, None] = {"lease_token": None, "lease_holder": None, "lease_expires_at": None}


def sources(target: TuneState) -> list[TuneState]:
    """Return the states from which a tune may move to `target`."""
    return [state for state, targets in TRANSITIONS.items() if target in targets]


async def move(
    session: AsyncSession,
    tune_id: str,
    where: list[ColumnElement[bool]],
    values: dict[str, Any],
    event: Callable[[Tune], Event],
) -> Tune | None:
    """Change the tune if `where` holds, publish its event, and return the tune; return None if `where` does not hold.

    The UPDATE decides, and locks the row. The outbox's row is written after it, so that a tune's events are in the order of the
    commits.
    """
    changed = (
        update(Tune)
        .where(Tune.id == tune_id, *where)
        .values(version=Tune.version + 1, updated_at=func.now(), **values)
        .returning(Tune)
        .execution_options(populate_existing=True)
    )
    tune = (await session.scalars(changed)).one_or_none()
    if tune is not None:
        await _publish(session, tune, event(tune))
    return tune


async def _publish(session: AsyncSession, tune: Tune, event: Event) -> None:
    """Write the event to the tune's log and to the outbox, and the webhook's delivery; the row already has its version."""
    data = event.model_dump(mode="json", exclude={"tune_id", "account_id", "version"})
    await session.execute(insert(TuneEvent).values(tune_id=tune.id, sequence=tune.version, type=event.type, data=data))
    await webhooks.write(session, tune, event, data)
    await outbox.publish(session, Context.TUNES, event)
    # PostgreSQL delivers it at commit, to the processes that stream the tune's events.
    await session.execute(select(func.pg_notify(CHANNEL, tune.id)))


def about(tune: Tune) -> dict[str, Any]:
    """Return the fields that every event about a tune has."""
    return {"tune_id": tune.id, "account_id": str(tune.account_id), "version": tune.version}


async def fail(session: AsyncSession, tune_id: str, where: list[ColumnElement[bool]], *, code: str, message: str) -> Tune | None:
    """End the tune without a LoRA, if `where` holds."""
    # The text of a library's error may have a NUL, or the surrogates of a file name that is not UTF-8.
    message = storable(message)
    values = {"state": TuneState.FAILED, "error_code": code, "status_details": message, "ended_at": func.now(), **NO_LEASE}
    where = [Tune.state.in_(sources(TuneState.FAILED)), *where]
    ended = await move(session, tune_id, where, values, lambda tune: TuneFailed(**about(tune), code=code, message=message))
    if ended:
        await clear_up(session, ended)
        await names.release(session, "tune", tune_id)
    return ended


async def cancel(session: AsyncSession, tune_id: str, where: list[ColumnElement[bool]]) -> Tune | None:
    """End the tune on request, if `where` holds."""
    values = {"state": TuneState.CANCELLED, "ended_at": func.now(), **NO_LEASE}
    where = [Tune.state.in_(sources(TuneState.CANCELLED)), *where]
    ended = await move(session, tune_id, where, values, lambda tune: TuneCancelled(**about(tune)))
    if ended:
        await clear_up(session, ended)
        await names.release(session, "tune", tune_id)
    return ended


async def clear_up(session: AsyncSession, tune: Tune) -> None:
    """Orphan the blobs that an ended tune does not need: its checkpoints, and its copy of the LoRA.

    Samples stay until the tune is deleted.
    """
    keys = list(await session.scalars(delete(Checkpoint).where(Checkpoint.tune_id == tune.id).returning(Checkpoint.blob_key)))
    if tune.lora_key:
        keys.append(tune.lora_key)
    if tune.deleted_at is not None:
        keys += await session.scalars(delete(Sample).where(Sample.tune_id == tune.id).returning(Sample.blob_key))
    if keys:
        await blob_rows.orphan(session, *keys)
