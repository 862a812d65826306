"""What the API answers, as far as the client needs it; fields that a newer server adds are kept."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Asset(_Answer):
    """Something in the library: an image, a LoRA, a checkpoint."""

    id: str
    asset_type: str
    name: str
    status: str
    status_details: str
    size_bytes: int
    created_at: datetime
    is_public: bool = False
    data: dict[str, Any]


class Progress(_Answer):
    """How far training is."""

    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None


class Tune(_Answer):
    """A fine-tune."""

    id: str
    name: str
    status: str
    status_details: str
    details: dict[str, Any]
    output_lora_ids: list[str]
    created_at: datetime
    progress: Progress | None = None
    warnings: list[dict[str, Any]] = []

    @property
    def has_ended(self) -> bool:
        """Whether the status will not change any more."""
        return self.status in {"succeeded", "failed", "cancelled"}


class Estimate(_Answer):
    """What a tune would take; `basis` says what the time was derived from."""

    seconds: float
    memory_bytes: int
    basis: str


class WhatIf(_Answer):
    """What would become of a tune: advice, each as `{code, message, file_id}`, and its cost."""

    lint: list[dict[str, Any]]
    estimate: Estimate


class GeneratedImage(BaseModel):
    """A picture, encoded as asked for, and the seed that draws it again."""

    data: bytes
    seed: int


class Generated(BaseModel):
    """The pictures of one request, and what the server wants the caller to know about them."""

    images: list[GeneratedImage]
    notice: str
