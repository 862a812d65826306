"""Generations: requests for images of the history, and what came of them."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tunesmith.models import Answer


class HistoryImage(Answer):
    """An image of the history. Its URLs are None where the safety checker removed it, and once it is deleted."""

    number: int
    seed: int
    url: str | None
    thumbnail_url: str | None
    width: int
    height: int
    removed_for_safety: bool


class Generation(Answer):
    """A request for images, how far it is, and its images once it has `succeeded`."""

    id: str
    group_id: str | None
    cell: list[int] | None
    engine: str
    status: str
    request: dict[str, Any]
    """The request with its seeds and without its images: sent again, it gives the same images."""
    images: list[HistoryImage]
    notices: list[str]
    error: dict[str, str] | None
    models: list[dict[str, Any]]
    versions: dict[str, str]
    ahead: int | None
    created_at: datetime
    finished_at: datetime | None
    kept_until: datetime | None
    starred: bool

    @property
    def has_ended(self) -> bool:
        """Whether the status is final."""
        return self.status in {"succeeded", "failed", "cancelled"}


class GenerationProgress(Answer):
    """How far a request is. `preview` is a small JPEG of the unfinished image, as a data URL."""

    id: str
    status: str
    step: int
    steps: int
    ahead: int | None
    preview: str | None


class Engine(Answer):
    """What an engine takes, and values that suit it."""

    name: str
    family: str
    default_checkpoint: str
    available: bool
    sizes: list[dict[str, int]]
    samplers: list[str]
    style_presets: list[str]
    recommended: dict[str, Any]
    limits: dict[str, Any]


def body_of(
    prompt: str, engine: str, variants: Sequence[dict[str, Any]] | None, group: dict[str, Any] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the body that requests images."""
    more = {"variants": variants, "group": group}
    given = {name: value for name, value in more.items() if value is not None}
    return {"engine": engine, "request": {"prompt": prompt, **options}, **given}


def told(event: str, line: str) -> Generation | GenerationProgress | None:
    """Return what a line of a stream tells after the line with the event's name; None for a line without data."""
    if not line.startswith("data: "):
        return None
    data = json.loads(line.removeprefix("data: "))
    return Generation.model_validate(data) if event == "done" else GenerationProgress.model_validate(data)
