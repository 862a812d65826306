"""Bodies and answers of the tune API, as OctoAI's clients send and read them, with what we add."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.states import ClientStatus
from shared.tunes.options import (
    MAX_VALIDATION_PROMPTS,
    Alpha,
    BatchSize,
    LearningRate,
    Optimizer,
    Rank,
    Resolution,
    Steps,
    TextEncoderLearningRate,
    ValidationPrompts,
)

MAX_FILES = 200
MAX_SEED = 2**32 - 1
MAX_URL = 2083

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=100)]
Text = Annotated[str, StringConstraints(max_length=1000)]


class _Lenient(BaseModel):
    # OctoAI's guide and clients send fields that its own API file does not know.
    model_config = ConfigDict(extra="ignore")


class BaseCheckpoint(_Lenient):
    """The checkpoint to tune: an id or a name of the account's own, or `octoai:NAME`. Its `name` is not looked at."""

    checkpoint_id: str
    engine: str | None = None


class File(_Lenient):
    """A training image and its caption; without a caption the trigger word stands in."""

    file_id: str
    caption: Text | None = None


def _one_word(words: list[str]) -> list[str]:
    if not words[0].strip():
        msg = "the trigger word is empty"
        raise ValueError(msg)
    return words


class Details(_Lenient):
    """What to train, and how. The fields after `resize_images` are ours, and all of them have a default."""

    tune_type: Literal["lora_tune"] | None = "lora_tune"
    base_checkpoint: BaseCheckpoint
    files: list[File] = Field(min_length=1, max_length=MAX_FILES)
    steps: Steps
    trigger_words: Annotated[list[Text], Field(min_length=1, max_length=1), AfterValidator(_one_word)]
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    engine: str | None = Field(default=None, description="By default the base checkpoint's, and never another.")
    resize_images: bool | None = Field(
        default=False, description="Scale the stored training copies down to a shorter edge of 512 px (SDXL: 1024), never up."
    )
    rank: Rank | None = Field(default=None, description="Rank of the LoRA's matrices.")
    alpha: Alpha | None = Field(default=None, description="Scale of the LoRA is alpha / rank; by default the rank.")
    learning_rate: LearningRate | None = Field(default=None, description="Peak learning rate.")
    optimizer: Optimizer | None = Field(default=None, description="By default adamw; adafactor needs less memory.")
    batch_size: BatchSize | None = Field(default=None, description="Images a step.")
    resolution: Resolution | None = Field(
        default=None,
        description="Side in pixels of the square that has as many pixels as images are trained at; by default the base's own "
        "size, at least half of it and at most twice.",
    )
    train_text_encoder: bool | None = Field(
        default=None, description="Train the text encoders as well; by default only below 256 px."
    )
    text_encoder_learning_rate: TextEncoderLearningRate | None = Field(
        default=None, description="Peak learning rate of the text encoders; by default half of `learning_rate`."
    )
    validation_prompts: ValidationPrompts | None = Field(
        default=None,
        description=f"Up to {MAX_VALIDATION_PROMPTS} prompts that a picture is drawn for at each checkpoint, at most ten times.",
    )
    checkpoint_every_steps: Steps | None = Field(default=None, description="Steps between resumable states.")


WebhookEvent = Literal["start", "progress", "completed"]


class CreateTune(_Lenient):
    """A request for a tune."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "name": "sks1-dog",
                    "description": "The dog.",
                    "details": {
                        "base_checkpoint": {"checkpoint_id": "octoai:default-sd15"},
                        "files": [{"file_id": "asset_01hf3a2qw7ek6vshbhd9c9yywd", "caption": "a photo of a sks1 dog on a beach"}],
                        "steps": 500,
                        "trigger_words": ["sks1"],
                    },
                }
            ]
        },
    )

    name: Name
    tune_type: Literal["lora_tune"] | None = Field(default=None, description="Some clients say it here as well.")
    description: Text | None = None
    details: Details
    continue_on_rejection: bool | None = False
    webhook: Annotated[str, StringConstraints(max_length=MAX_URL)] | None = Field(
        default=None, description="A public http(s) address that is told how the tune goes on."
    )
    webhook_events_filter: Annotated[list[WebhookEvent], Field(min_length=1)] | None = Field(
        default=None, description="What the webhook is told; by default everything."
    )


OPTIONS = (
    "rank",
    "alpha",
    "learning_rate",
    "optimizer",
    "batch_size",
    "resolution",
    "train_text_encoder",
    "text_encoder_learning_rate",
    "validation_prompts",
    "checkpoint_every_steps",
)
"""The fields of `Details` that are passed on to the recipe; what is left out is the recipe's default."""


class Progress(BaseModel):
    """How far training is."""

    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None


class Warning_(BaseModel):  # noqa: N801 - Warning is Python's own
    """Something about the request that is allowed, but probably not meant."""

    code: str
    message: str
    file_id: str | None = None


class Result(BaseModel):
    """What a tune yielded, and which of its files were left out."""

    number_of_available_assets: int
    output_assets: list[str]
    rejected_assets: list[str]
    unready_assets: list[str]


class TuneAnswer(BaseModel):
    """A tune."""

    id: str
    tenant_id: UUID
    name: str
    description: str
    tune_type: str
    details: dict[str, Any]
    status: ClientStatus
    status_details: str
    output_lora_ids: list[str]
    result: Result | None
    created_at: datetime
    updated_at: datetime
    succeeded_at: datetime | None
    deleted_at: datetime | None
    progress: Progress | None
    warnings: list[Warning_]
    webhook: str | None
    webhook_events_filter: list[WebhookEvent]


class TuneList(BaseModel):
    """A page of tunes, newest first."""

    data: list[TuneAnswer]
    has_more: bool
    total: int
