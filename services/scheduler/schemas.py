"""Bodies and answers of the tune API, as OctoAI's clients send and read them, with what we add."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.states import ClientStatus

MAX_FILES = 200
MAX_STEPS = 10_000
MAX_SEED = 2**32 - 1
MAX_RANK = 128

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=100)]
Text = Annotated[str, StringConstraints(max_length=1000)]


class _Lenient(BaseModel):
    # OctoAI's guide and clients send fields that its own API file does not know.
    model_config = ConfigDict(extra="ignore")


class BaseCheckpoint(_Lenient):
    """The checkpoint to tune: an id or a name of the account's own, or `octoai:NAME`."""

    checkpoint_id: str


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
    """What to train, and how. The fields after `resize_images` are ours; what is left out is the recipe's default."""

    tune_type: Literal["lora_tune"] = "lora_tune"
    base_checkpoint: BaseCheckpoint
    files: list[File] = Field(min_length=1, max_length=MAX_FILES)
    steps: int = Field(ge=1, le=MAX_STEPS)
    trigger_words: Annotated[list[Text], Field(min_length=1, max_length=1), AfterValidator(_one_word)]
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    resize_images: bool | None = False
    rank: int | None = Field(default=None, ge=1, le=MAX_RANK, description="Rank of the LoRA's matrices.")
    alpha: float | None = Field(default=None, gt=0, description="Scale of the LoRA is alpha / rank; by default the rank.")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="Peak learning rate.")
    batch_size: int | None = Field(default=None, ge=1, le=64, description="Images a step.")
    checkpoint_every_steps: int | None = Field(default=None, ge=1, description="Steps between resumable states.")


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
    description: Text | None = None
    details: Details
    continue_on_rejection: bool | None = False


OPTIONS = ("rank", "alpha", "learning_rate", "batch_size", "checkpoint_every_steps")
"""The fields of `Details` that are passed on to the recipe."""


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


class TuneList(BaseModel):
    """A page of tunes, newest first."""

    data: list[TuneAnswer]
    has_more: bool
    total: int


class Event(BaseModel):
    """Something that happened to a tune."""

    sequence: int
    type: str
    data: dict[str, Any]
    occurred_at: datetime


class EventList(BaseModel):
    """A page of a tune's events, oldest first; ask for the next with `after` set to the last one's sequence."""

    data: list[Event]
    has_more: bool
