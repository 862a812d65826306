"""The API's answers. Fields that a newer server adds are kept.

A test compares these models with the server's own.
"""

from datetime import datetime
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from tunesmith import notebook


class Answer(BaseModel):
    """An answer of the API."""

    model_config = ConfigDict(extra="allow")


class Asset(Answer):
    """An entry of the library: an image, a LoRA, a checkpoint, a VAE or a textual inversion."""

    id: str
    asset_type: str
    name: str
    description: str = ""
    status: str
    status_details: str
    size_bytes: int
    created_at: datetime
    is_public: bool = False
    data: dict[str, Any]

    @property
    def is_usable(self) -> bool:
        """Whether the asset is uploaded, and has not been rejected."""
        return self.status in {"uploaded", "ready"}


class Progress(Answer):
    """How far the training of a tune is."""

    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None


class Queue(Answer):
    """What a tune waits for: `reason` is `files`, `ahead` or `no_trainer`."""

    reason: str
    ahead: int
    files_unchecked: int


class TuneFields(Answer):
    """A fine-tune, as the API shows it. `Tune` adds what can be done with it."""

    id: str
    name: str
    description: str = ""
    status: str
    status_details: str
    details: dict[str, Any]
    output_lora_ids: list[str]
    created_at: datetime
    progress: Progress | None = None
    warnings: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    phase: str = ""
    queue: Queue | None = None
    error_code: str | None = None
    attempt: int = 0
    max_attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    dataset_id: str | None = None
    sequence: int = 0
    thumbnail_urls: list[str] = Field(default_factory=list[str])

    @property
    def has_ended(self) -> bool:
        """Whether the tune has ended, so that its status no longer changes."""
        return self.status in {"succeeded", "failed", "cancelled"}

    def _repr_html_(self) -> str:
        """Return the tune for a notebook: its name, its status and a progress bar."""
        done, total = (self.progress.step, self.progress.steps) if self.progress else (0, 0)
        return notebook.tune(self.name, self.status, self.status_details, done, total, self.thumbnail_urls)


class TuneEvent(TypedDict):
    """An event of a tune. `sequence` counts the tune's events from 1 without a gap."""

    sequence: int
    type: str
    data: dict[str, Any]
    occurred_at: str


class Losses(Answer):
    """The loss of each step from `first_step` on; None for a step whose loss was not reported."""

    first_step: int
    losses: list[float | None]
    resumed_at: list[int] = Field(default_factory=list[int])
    sequence: int = 0

    def _repr_html_(self) -> str:
        """Return the curve for a notebook."""
        return notebook.curve(self.first_step, self.losses)


class Sample(Answer):
    """An image that was generated during training. `number` is the position of its prompt; the link is valid for an hour."""

    step: int
    number: int
    prompt: str
    seed: int
    url: str

    def _repr_html_(self) -> str:
        """Return the image for a notebook."""
        return notebook.figure(self.url, f"step {self.step}: {self.prompt}")


class Estimate(Answer):
    """The estimated cost of a tune. `basis` says what the time was derived from."""

    seconds: float
    memory_bytes: int
    basis: str


class WhatIf(Answer):
    """Advice on a tune that was not started, as a list of `{code, message, file_id}`, and its estimated cost."""

    lint: list[dict[str, Any]]
    estimate: Estimate


class Dataset(Answer):
    """Images, captions and settings that are kept for a tune. A change names the `version` that it was made on."""

    id: str
    version: int
    name: str
    trigger_word: str
    subject_class: str
    files: list[dict[str, Any]]
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Delivery(Answer):
    """A call of a tune's webhook. `state` is `pending`, `delivered` or `failed`."""

    id: str
    type: str
    state: str
    attempts: int
    last_error: str | None = None


class Account(Answer):
    """An account, as an operator sees it. A limit that is None is the server's setting."""

    id: str
    name: str
    created_at: datetime
    limits: dict[str, int | None]


class Key(Answer):
    """An API key. `secret` is in the answer that creates it, and in no other."""

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    secret: str | None = None
