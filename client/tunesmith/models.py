"""The API's responses, as far as the client needs them. Fields that a newer server adds are kept."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Asset(_Answer):
    """An entry of the library: an image, a LoRA, a checkpoint, a VAE or a textual inversion."""

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
    """How far the training of a tune is."""

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
        """Whether the tune has ended, so that its status no longer changes."""
        return self.status in {"succeeded", "failed", "cancelled"}


class Estimate(_Answer):
    """The estimated cost of a tune. `basis` says what the time was derived from."""

    seconds: float
    memory_bytes: int
    basis: str


class WhatIf(_Answer):
    """Advice on a tune that was not started, as a list of `{code, message, file_id}`, and its estimated cost."""

    lint: list[dict[str, Any]]
    estimate: Estimate


class GeneratedImage(BaseModel):
    """An image, encoded as the request asked, and the seed that draws the same image again."""

    data: bytes
    seed: int


class Generated(BaseModel):
    """The images of one request. `notice` names fields that the server did not apply as sent; it is empty if there are none."""

    images: list[GeneratedImage]
    notice: str
