"""Bodies and answers of the tune API: OctoAI's fields, and those that Tunesmith adds."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.formats.clip.captions import GENERAL_PROMPT
from shared.states import ClientStatus
from shared.tunes.memory import SMALL_PX
from shared.tunes.options import (
    MAX_VALIDATION_PROMPTS,
    Alpha,
    BatchSize,
    ClipSkip,
    LearningRate,
    Optimizer,
    Prior,
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
MAX_CAPTION_BYTES = 8000
"""1,300 English words. Bytes, because a token has at least one: each caption is kept encoded while a tune is trained."""


def _short_caption(caption: str) -> str:
    size = len(caption.encode(errors="replace"))
    if size > MAX_CAPTION_BYTES:
        msg = f"the caption has {size} bytes as UTF-8; at most {MAX_CAPTION_BYTES} are allowed; shorten it"
        raise ValueError(msg)
    return caption


Caption = Annotated[str, AfterValidator(_short_caption), Field(json_schema_extra={"maxLength": MAX_CAPTION_BYTES})]


class _Lenient(BaseModel):
    # OctoAI's guide and clients send fields that its API description does not have.
    model_config = ConfigDict(extra="ignore")


class BaseCheckpoint(_Lenient):
    """The checkpoint to tune: its id, its name if it is the account's own, or `octoai:NAME`. A `name` beside it is ignored."""

    checkpoint_id: str
    engine: str | None = None


class File(_Lenient):
    """A training image and its caption, which is the trigger word by default, or "a photo" for a regularization image."""

    file_id: str
    caption: Caption | None = None
    regularization: bool = Field(
        default=False,
        description="The image shows not the subject but others of its class, for the prior `class_images`; its caption is "
        "without the trigger word.",
    )

    def caption_or(self, trigger_word: str) -> str:
        """Return the caption, or what stands for it if there is none."""
        return (self.caption or "").strip() or (GENERAL_PROMPT if self.regularization else trigger_word)


def _one_word(words: list[str]) -> list[str]:
    if not words[0].strip():
        msg = "the trigger word is empty; choose a word that the captions contain"
        raise ValueError(msg)
    return words


class Details(_Lenient):
    """What to train, and how. The fields after `resize_images` are not OctoAI's, and each has a default."""

    tune_type: Literal["lora_tune"] | None = "lora_tune"
    base_checkpoint: BaseCheckpoint
    files: list[File] = Field(min_length=1, max_length=MAX_FILES)
    steps: Steps
    trigger_words: Annotated[list[Text], Field(min_length=1, max_length=1), AfterValidator(_one_word)]
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    engine: str | None = Field(default=None, description="The base checkpoint's engine, which is the default.")
    resize_images: bool | None = Field(
        default=False, description="Scale the trainer's copies down to a shorter edge of 512 px (SDXL: 1024), never up."
    )
    rank: Rank | None = Field(default=None, description="Rank of the LoRA's matrices.")
    alpha: Alpha | None = Field(default=None, description="The LoRA is scaled by alpha / rank; by default the rank.")
    learning_rate: LearningRate | None = Field(default=None, description="Peak learning rate.")
    optimizer: Optimizer | None = Field(default=None, description="By default adamw; adafactor needs less memory.")
    batch_size: BatchSize | None = Field(
        default=None, description="Training images in each step; `steps` times this are the views of all images."
    )
    resolution: Resolution | None = Field(
        default=None,
        description="Side in pixels of a square with as many pixels as a training image has: half to twice the base's native "
        "size, which is the default.",
    )
    train_text_encoder: bool | None = Field(
        default=None, description=f"Train the text encoders as well; by default only if the base is below {SMALL_PX} px."
    )
    text_encoder_learning_rate: TextEncoderLearningRate | None = Field(
        default=None, description="Peak learning rate of the text encoders; by default half of `learning_rate`."
    )
    validation_prompts: ValidationPrompts | None = Field(
        default=None,
        description=f"Up to {MAX_VALIDATION_PROMPTS} prompts; an image is drawn for each at the checkpoints, at most ten times, "
        "and after the last step.",
    )
    prior: Prior | None = Field(
        default=None,
        description="What keeps the base's knowledge of the class: `base_output`, which is the default; `class_images`, the "
        "default with regularization images; or `none`, the default if every caption names the trigger word as a style.",
    )
    clip_skip: ClipSkip | None = Field(
        default=None,
        description="Captions are read from the n-th last layer of the text encoders; by default the last, SDXL the second-last.",
    )
    checkpoint_every_steps: Steps | None = Field(
        default=None, description="Steps between checkpoints, which an interrupted tune resumes from."
    )

    @property
    def trigger_word(self) -> str:
        """The only one of `trigger_words`."""
        return self.trigger_words[0].strip()

    @property
    def subjects(self) -> list[File]:
        """The files that show the subject."""
        return [file for file in self.files if not file.regularization]


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
    tune_type: Literal["lora_tune"] | None = Field(default=None, description="Some clients send it here as well.")
    description: Text | None = None
    details: Details
    continue_on_rejection: bool | None = False
    dataset_id: str | None = Field(default=None, description="The dataset that the tune is started from, for reference.")
    webhook: Annotated[str, StringConstraints(max_length=MAX_URL)] | None = Field(
        default=None, description="A public http(s) address that receives the tune's events by POST."
    )
    webhook_events_filter: Annotated[list[WebhookEvent], Field(min_length=1)] | None = Field(
        default=None, description="The kinds of events that the webhook receives; by default all."
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
    "prior",
    "clip_skip",
    "checkpoint_every_steps",
)
"""The fields of `Details` that are passed on to the recipe; the recipe has a default for each."""


class Progress(BaseModel):
    """How far training is."""

    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None


class Warning_(BaseModel):  # noqa: N801 - Warning is Python's own
    """A part of the request that is allowed, but probably a mistake."""

    code: str
    message: str
    file_id: str | None = None


class Result(BaseModel):
    """The LoRA of a tune, and the files that were left out of training."""

    number_of_available_assets: int
    output_assets: list[str]
    rejected_assets: list[str]
    unready_assets: list[str]


Phase = Literal["files", "queue", "loading", "training", "saving", "ended"]


class Queue(BaseModel):
    """What a tune waits for that no trainer has."""

    reason: Literal["files", "ahead", "no_trainer"] = Field(
        description="`files`: images are being checked; `ahead`: `ahead` tunes come before it; `no_trainer`: none is connected."
    )
    ahead: int = Field(description="The tunes of all accounts that were queued before it.")
    files_unchecked: int = Field(description="Its images without a verdict.")


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
    sequence: int = Field(description="The sequence number of its last event.")
    phase: Phase = Field(description="Where it is on the way from its images to its LoRA.")
    error_code: str | None = Field(description="Why it failed, for programs.")
    queue: Queue | None = Field(description="What it waits for; null once a trainer has it.")
    attempt: int
    max_attempts: int
    started_at: datetime | None = Field(description="When a trainer claimed it first.")
    ended_at: datetime | None
    dataset_id: str | None
    thumbnail_urls: list[str] = Field(
        description="Up to four images that stand for it: its newest samples, or some of its training images."
    )


class TuneList(BaseModel):
    """A page of tunes, newest first."""

    data: list[TuneAnswer]
    has_more: bool
    total: int
