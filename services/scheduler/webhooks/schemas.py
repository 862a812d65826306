"""Answers about an account's webhooks: its secret, and the calls of its tunes."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Secret(BaseModel):
    """The secret that the account's webhooks are signed with: `whsec_` and the key in base 64."""

    secret: str


class Delivery(BaseModel):
    """A call of a tune's webhook, with all of its attempts. `last_status` is null while no answer came to the last attempt."""

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
                    "last_error": "the receiver answered 500",
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
