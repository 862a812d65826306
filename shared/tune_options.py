"""What a tune may choose beyond OctoAI's fields, with its limits: one place for the API that takes it and the recipe."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

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
