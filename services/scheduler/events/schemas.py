"""Answers about a tune's events."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class EventAnswer(BaseModel):
    """An event of a tune. `sequence` counts the tune's events from 1 without a gap."""

    sequence: int
    type: str
    data: dict[str, Any]
    occurred_at: datetime


class EventList(BaseModel):
    """A page of a tune's events, oldest first; ask for the next with `after` set to the last one's sequence."""

    data: list[EventAnswer]
    has_more: bool
