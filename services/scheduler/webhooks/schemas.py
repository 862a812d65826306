"""What an account is told of its tunes' webhook calls."""

import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.webhooks import repository
from shared.database.tables import WebhookDelivery


class Delivery(BaseModel):
    """A call of a tune's webhook, with all of its attempts. What never got an answer has no `last_status`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "msg_01hf3a2qw7ek6vshbhd9c9yywd",
                    "sequence": 2,
                    "type": "tune.started",
                    "state": "pending",
                    "attempts": 1,
                    "last_status": 500,
                    "last_error": "it answered 500",
                    "next_attempt_at": "2026-03-02T10:15:36Z",
                    "created_at": "2026-03-02T10:15:30Z",
                    "ended_at": None,
                }
            ]
        },
    )

    id: str
    sequence: int
    type: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryList(BaseModel):
    """A page of a tune's webhook calls, oldest first; ask for the next with `after` set to the last one's sequence."""

    data: list[Delivery]
    has_more: bool


async def page(session: AsyncSession, tune_id: str, *, after: int, limit: int) -> DeliveryList:
    """Return the calls that tell of the tune's events after a sequence number, oldest first."""
    found = await repository.deliveries_of(session, tune_id, after=after, limit=limit + 1)
    return DeliveryList(data=[_show(row) for row in found[:limit]], has_more=len(found) > limit)


def _show(row: WebhookDelivery) -> Delivery:
    return Delivery(
        id=row.id,
        sequence=row.sequence,
        type=json.loads(row.body)["type"],
        state=row.state,  # pyright: ignore[reportArgumentType] - the table's own check
        attempts=row.attempt,
        last_status=row.last_status,
        last_error=row.last_error,
        next_attempt_at=row.due_at if row.state == "pending" else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
