"""Writes webhook deliveries, in the transaction of their events; `services/scheduler/webhooks/service.py` sends them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Tune, WebhookDelivery
from shared.ids import new_id
from shared.messaging.events import (
    Event,
    TuneCancelled,
    TuneCheckpointed,
    TuneFailed,
    TuneProgressed,
    TuneRequeued,
    TuneSampled,
    TuneStarted,
    TuneSucceeded,
)
from shared.states import TuneState, client_status

PROGRESS_EVERY = timedelta(milliseconds=500)
_PROGRESS = (TuneProgressed, TuneCheckpointed, TuneSampled, TuneRequeued)
_COMPLETED = (TuneSucceeded, TuneFailed, TuneCancelled)


def kind_of(event: Event) -> str | None:
    """Return the webhook's kind of this event, or None for an event that no webhook is called for.

    A tune starts once: a claim after the first is progress.
    """
    if isinstance(event, TuneStarted):
        return "start" if event.epoch == 1 else "progress"
    if isinstance(event, _PROGRESS):
        return "progress"
    return "completed" if isinstance(event, _COMPLETED) else None


async def write(session: AsyncSession, tune: Tune, event: Event, data: dict[str, Any]) -> None:
    """Write the event's delivery, if it has one. The caller has locked the tune's row.

    Of progress, at most one delivery is written in half a second, and a newer event replaces a delivery that still waits.
    """
    kind = kind_of(event)
    if tune.webhook is None or kind is None or kind not in tune.webhook_events:
        return
    of_progress = WebhookDelivery.tune_id == tune.id, WebhookDelivery.kind == "progress"
    if kind == "progress":
        recent = exists().where(*of_progress, WebhookDelivery.created_at > func.now() - PROGRESS_EVERY)
        if await session.scalar(select(recent)):
            return
    # Keep one that is being sent: its sender writes the result.
    in_hand = func.coalesce(WebhookDelivery.claimed_until > func.now(), False)
    await session.execute(delete(WebhookDelivery).where(*of_progress, WebhookDelivery.state == "pending", ~in_hand))
    if isinstance(event, TuneSampled):
        # The images' keys in the store are internal; the API's events have links to the images.
        data = data | {"samples": [sample.model_dump(exclude={"key"}) for sample in event.samples]}
    body = {
        "type": event.type,
        "timestamp": datetime.now(UTC).isoformat(),
        "data": {
            "tune_id": tune.id,
            "name": tune.name,
            "status": client_status(TuneState(tune.state), tune.lease_epoch),
            "sequence": tune.version,
            **data,
        },
    }
    row = {"id": new_id("msg"), "tune_id": tune.id, "sequence": tune.version, "kind": kind, "url": tune.webhook}
    await session.execute(insert(WebhookDelivery).values(**row, body=json.dumps(body, ensure_ascii=False)))
