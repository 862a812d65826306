"""What a tune may choose beyond OctoAI's fields, with its limits: one place for the API that takes it and the recipe."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from shared.engines import Engine
from shared.tunes.memory import SMALL_PX

MAX_STEPS = 10_000
MAX_RESOLUTION_PX = 2048
MAX_VALIDATION_PROMPTS = 4


class Optimizer(StrEnum):
    """How the adapter's weights are moved by their gradients."""

    ADAMW = "adamw"
    """Loshchilov & Hutter 2019."""
    ADAFACTOR = "adafactor"
    """Shazeer & Stern 2018: factored second moments, so far less memory; the learning rate is used as it is given."""


Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Rank = Annotated[int, Field(ge=1, le=128)]
Alpha = Annotated[float, Field(gt=0, le=256)]
LearningRate = Annotated[float, Field(gt=0, le=0.1)]
TextEncoderLearningRate = Annotated[float, Field(ge=0, le=0.1)]
BatchSize = Annotated[int, Field(ge=1, le=64)]
Resolution = Annotated[int, Field(ge=32, le=MAX_RESOLUTION_PX)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
ValidationPrompts = Annotated[list[Prompt], Field(max_length=MAX_VALIDATION_PROMPTS)]
CLASS_BATCH_SIZE = 2
"""Class pictures in a step, beside the images."""


def default_parameters(engine: Engine, native_size_px: int) -> dict[str, Any]:
    """Return what differs by model: its adapter's size and how fast it learns.

    512 and 1024 px: rank 16 and 1e-4, as diffusers' and kohya's examples train SD 1.5 and SDXL. Small models (below 256 px)
    have little width to adapt and take far larger steps, and their text encoders tell a new word from others only when they
    are trained along; theirs were measured.
    """
    by_size = {"resolution": native_size_px}
    if native_size_px < SMALL_PX:
        return by_size | {"rank": 8, "learning_rate": 2e-3, "batch_size": 4, "train_text_encoder": True}
    return by_size | {"rank": 16, "learning_rate": 1e-4, "batch_size": 4 if engine is Engine.SD15 else 2}
