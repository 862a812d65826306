"""A tune's options beyond OctoAI's fields, with their limits, for the API that accepts them and for the recipe."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from shared.engines import Engine
from shared.tunes.memory import SMALL_PX

MAX_STEPS = 10_000
MAX_RESOLUTION_PX = 2048
MAX_VALIDATION_PROMPTS = 4


class Optimizer(StrEnum):
    """The optimizer of the adapter's weights."""

    ADAMW = "adamw"
    """Loshchilov & Hutter 2019."""
    ADAFACTOR = "adafactor"
    """Shazeer & Stern 2018: factored second moments need far less memory. The learning rate is used as given."""


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
"""Class images in a step, besides the training images."""


def default_parameters(engine: Engine, native_size_px: int) -> dict[str, Any]:
    """Return the parameters whose defaults depend on the model: resolution, rank, learning rate, batch size and text encoder.

    512 and 1024 px: rank 16 and 1e-4, as in the examples of diffusers and kohya-ss for SD 1.5 and SDXL. Models below `SMALL_PX`
    have little width to adapt and need far larger steps. Their text encoders distinguish a new word only when they are trained
    too. These values were measured.
    """
    by_size = {"resolution": native_size_px}
    if native_size_px < SMALL_PX:
        return by_size | {"rank": 8, "learning_rate": 2e-3, "batch_size": 4, "train_text_encoder": True}
    return by_size | {"rank": 16, "learning_rate": 1e-4, "batch_size": 4 if engine is Engine.SD15 else 2}
