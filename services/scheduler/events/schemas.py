"""Answers about a tune's events."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class EventAnswer(BaseModel):
    """An event of a tune. `sequence` counts the tune's events from 1 without a gap."""

    sequence: int
    type: str
    data: dict[str, Any]
    occurred_at: datetime


class Losses(BaseModel):
    """The loss of each step, as far as it was reported. Later events than `sequence` are not in it."""

    first_step: int
    losses: list[float | None] = Field(description="From `first_step` on; null for a step whose loss was not reported.")
    resumed_at: list[int] = Field(description="The steps that another attempt resumed from.")
    sequence: int


class SampleAnswer(BaseModel):
    """An image that was generated during training. `number` is the position of its prompt in the request."""

    step: int
    number: int
    prompt: str
    seed: int
    url: str


class SampleList(BaseModel):
    """All samples of a tune, by step and prompt. Later events than `sequence` are not in it."""

    data: list[SampleAnswer]
    sequence: int


class EventList(BaseModel):
    """A page of a tune's events, oldest first; ask for the next with `after` set to the last one's sequence."""

    data: list[EventAnswer]
    has_more: bool
