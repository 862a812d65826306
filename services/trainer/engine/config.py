"""A job: the files and the recipe's numbers that the training process gets. Imports no torch, since the service writes it."""

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.trainer.engine.errors import InvalidParameterError
from shared.engines import Engine
from shared.tunes.options import (
    Alpha,
    BatchSize,
    ClipSkip,
    LearningRate,
    Optimizer,
    Prior,
    Rank,
    Resolution,
    TextEncoderLearningRate,
    ValidationPrompts,
    default_parameters,
    prior_batch_size,
)

Device = Literal["auto", "cpu", "cuda"]
JOB_FILE = "job.json"


class Phase(StrEnum):
    """What an attempt is busy with. A setting for each phase limits how long it may report nothing."""

    DOWNLOAD = "download"
    LOAD = "load"
    CACHE = "cache"
    PRIOR = "prior"
    TRAIN = "train"
    FIRST_STEP = "first_step"
    """A GPU loads and chooses its kernels in the first step, or compiles them."""
    SAMPLE = "sample"
    SAVE = "save"
    PUBLISH = "publish"


class Parameters(BaseModel):
    """The recipe's numbers. `default_parameters` has those that a tune leaves out and that depend on its base."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rank: Rank = Field(description="Rank of the adapter's matrices (LoRA: Hu et al. 2021, section 4.1).")
    alpha: Alpha | None = Field(
        default=None,
        description="The adapter is scaled by alpha / rank; None means rank, as readers of LoRA files assume.",
    )
    learning_rate: LearningRate = Field(description="Peak learning rate of the UNet's adapter.")
    text_encoder_learning_rate: TextEncoderLearningRate = Field(
        default=0.0, description="Peak learning rate of the text encoders' adapters; 0 leaves the text encoders untrained."
    )
    optimizer: Optimizer = Field(default=Optimizer.ADAMW, description="How gradients change the adapter.")
    batch_size: BatchSize = Field(description="Training images in a step.")
    resolution: Resolution = Field(description="Side in pixels of a square with as many pixels as a training image gets.")
    validation_prompts: ValidationPrompts = Field(
        default_factory=list, description="Prompts for which images are generated at checkpoints."
    )
    sample_steps: int = Field(default=20, ge=1, le=200, description="Sampler steps for such an image.")
    sample_guidance_scale: float = Field(default=5.0, ge=0, le=30, description="Guidance scale for such an image.")
    lr_schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        default="cosine", description="Course of the learning rate over the steps, by its name in diffusers.optimization."
    )
    warmup_steps: int = Field(default=10, ge=0, le=10_000, description="Steps in which the learning rate rises from 0.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay (Loshchilov & Hutter 2019).")
    max_gradient_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    caption_dropout: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Part of the captions that are replaced by an empty one, for guidance (Ho & Salimans 2022).",
    )
    min_snr_gamma: float | None = Field(
        default=5.0,
        gt=0,
        description="Cap of the signal-to-noise ratio in the loss weights (Hang et al. 2023); None weights timesteps equally.",
    )
    clip_skip: ClipSkip | None = Field(
        default=None, description="Captions are read from the n-th last layer of the text encoders; None is the base's own."
    )
    prior: Prior = Field(default=Prior.BASE_OUTPUT, description="What keeps the base's knowledge of the class.")
    prior_batch_size: int = Field(ge=1, le=64, description="Rows of a step for the prior, besides the training images.")
    prior_weight: float = Field(default=1.0, ge=0, le=10, description="Weight of the prior's loss (lambda in DreamBooth).")
    class_images: int = Field(
        default=24,
        ge=1,
        le=1000,
        description="Images of the class that the base generates before training, for the prior `class_images`.",
    )
    class_sampler_steps: int = Field(default=15, ge=1, le=200, description="Sampler steps for a class image.")
    class_guidance_scale: float = Field(default=5.0, ge=0, le=30, description="Guidance scale for a class image.")


def resolve_parameters(native_size_px: int, chosen: dict[str, Any]) -> Parameters:
    """Return what the tune chose, completed by the defaults. Raises InvalidParameterError, which names field, value and limit.

    Text encoders that are trained without a learning rate of their own get half of the UNet's, since they overfit sooner.
    """
    # None means "not chosen", except where it is a choice of its own.
    given = {name: value for name, value in chosen.items() if value is not None or name == "min_snr_gamma"}
    complete: dict[str, Any] = default_parameters(native_size_px) | given
    complete.setdefault("prior_batch_size", prior_batch_size(complete["batch_size"]))
    if complete.pop("train_text_encoder", None):
        complete.setdefault("text_encoder_learning_rate", complete["learning_rate"] / 2)
    try:
        return Parameters.model_validate(complete)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"parameters.{field}: {first['msg']}, not {first['input']!r}; start a new tune with another value"
        raise InvalidParameterError(msg) from error


class TrainingImage(BaseModel):
    """An image and its caption."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    file: Path
    caption: str
    regularization: bool = False
    """An image of the class, which the account brought for the prior."""


class Job(BaseModel):
    """All that the training process needs for one attempt. Every path is in the job's folder or in the cache of bases."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    tune_id: str
    engine: Engine
    base_folder: Path
    base_sha256: str
    shape_class: str
    native_size_px: int
    trigger_word: str
    steps: int = Field(ge=1)
    seed: int
    images: list[TrainingImage] = Field(min_length=1)
    parameters: Parameters
    shrink_to_px: int | None = None
    """The shorter edge to which the images are scaled down first."""
    resume_from: Path | None = None
    checkpoint_every_steps: int = Field(ge=1)
    sample_rounds: int = Field(default=10, ge=1)
    """How often, at most, images are generated for the validation prompts; the last step is always one of the times."""
    output_folder: Path
    device: Device = "auto"

    def samples_at(self, step: int) -> bool:
        """Return whether images for the validation prompts are generated after this step; this depends on the step alone."""
        if not self.parameters.validation_prompts:
            return False
        checkpoints = (self.steps - 1) // self.checkpoint_every_steps
        # One round belongs to the last step; the others are spread evenly over the checkpoints.
        every = self.checkpoint_every_steps * max(1, -(-checkpoints // max(1, self.sample_rounds - 1)))
        return step == self.steps or (self.sample_rounds > 1 and step % every == 0)
