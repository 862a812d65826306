"""What a child is asked to train: the job's files and the recipe's numbers. No torch here: the parent writes it."""

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.trainer.errors import InvalidParameterError
from shared.engines import Engine
from shared.tunes.options import (
    CLASS_BATCH_SIZE,
    Alpha,
    BatchSize,
    LearningRate,
    Optimizer,
    Rank,
    Resolution,
    TextEncoderLearningRate,
    ValidationPrompts,
    default_parameters,
)

Device = Literal["auto", "cpu", "cuda"]
SPEC_FILE = "job.json"


class Phase(StrEnum):
    """What an attempt is busy with; each phase has a bound of its own for how long it may report nothing."""

    DOWNLOAD = "download"
    LOAD = "load"
    CACHE = "cache"
    PRIOR = "prior"
    TRAIN = "train"
    SAMPLE = "sample"
    SAVE = "save"
    PUBLISH = "publish"


class Parameters(BaseModel):
    """The recipe's numbers. What a tune leaves out comes from `default_parameters`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Rank = Field(description="Rank of the adapter's matrices (LoRA: Hu et al. 2021, section 4.1).")
    alpha: Alpha | None = Field(
        default=None, description="The adapter is scaled by alpha / rank; None is rank, which every reader gets right."
    )
    learning_rate: LearningRate = Field(description="Peak learning rate of the UNet's adapter.")
    text_encoder_learning_rate: TextEncoderLearningRate = Field(
        default=0.0, description="Peak learning rate of the text encoders' adapters; 0 trains none."
    )
    optimizer: Optimizer = Field(default=Optimizer.ADAMW, description="How gradients move the adapter.")
    batch_size: BatchSize = Field(description="Training images in a step.")
    resolution: Resolution = Field(description="Side in pixels of a square with as many pixels as a training image has.")
    validation_prompts: ValidationPrompts = Field(
        default_factory=list, description="What a picture is drawn for at each checkpoint."
    )
    sample_steps: int = Field(default=20, ge=1, le=200, description="Sampler steps for such a picture.")
    sample_guidance_scale: float = Field(default=5.0, ge=0, le=30, description="Guidance scale for such a picture.")
    lr_schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        default="cosine", description="Course of the learning rate, one of diffusers.optimization's."
    )
    warmup_steps: int = Field(default=10, ge=0, le=10_000, description="Steps in which the learning rate rises from 0.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay (Loshchilov & Hutter 2019).")
    max_gradient_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    caption_dropout: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Part of the images that are shown without caption, for guidance (Ho & Salimans 2022).",
    )
    min_snr_gamma: float | None = Field(
        default=5.0,
        gt=0,
        description="Cap of the signal-to-noise ratio in the loss weight (Hang et al. 2023); None weights evenly.",
    )
    class_images: int = Field(
        default=24,
        ge=0,
        le=1000,
        description="Pictures of the class that the base draws itself, which keep the class what it was "
        "(DreamBooth: Ruiz et al. 2023, 4.3); 0 for none.",
    )
    class_batch_size: int = Field(
        default=CLASS_BATCH_SIZE, ge=1, le=64, description="Class pictures in a step, beside the images."
    )
    class_weight: float = Field(
        default=1.0, ge=0, le=10, description="Weight of the class pictures' loss (lambda in DreamBooth)."
    )
    class_sampler_steps: int = Field(default=15, ge=1, le=200, description="Sampler steps for a class picture.")
    class_guidance_scale: float = Field(default=5.0, ge=0, le=30, description="Guidance scale for a class picture.")


def resolve_parameters(engine: Engine, native_size_px: int, chosen: dict[str, Any]) -> Parameters:
    """Complete what the tune chose by the defaults. Raises InvalidParameterError, which names field, value and limit.

    Text encoders that are to be trained, without a rate of their own, get half of the UNet's: they overfit sooner.
    """
    given = {name: value for name, value in chosen.items() if value is not None or name == "min_snr_gamma"}
    complete: dict[str, Any] = default_parameters(engine, native_size_px) | given
    if complete.pop("train_text_encoder", None):
        complete.setdefault("text_encoder_learning_rate", complete["learning_rate"] / 2)
    try:
        return Parameters.model_validate(complete)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"parameters.{field}: {first['msg']}, not {first['input']!r}; start the tune again with another value"
        raise InvalidParameterError(msg) from error


class TrainingImage(BaseModel):
    """One image and the words it is trained with."""

    model_config = ConfigDict(frozen=True)

    file: Path
    caption: str


class Job(BaseModel):
    """One attempt at a tune: all that the child needs; every path lies in the job's folder or the base's cache."""

    model_config = ConfigDict(frozen=True)

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
    """The shorter edge that the folder's images are scaled down to, in place, before anything looks at them."""
    resume_from: Path | None = None
    checkpoint_every_steps: int = Field(ge=1)
    sample_rounds: int = Field(default=10, ge=1)
    """At how many of the checkpoints, at most, pictures are drawn for the validation prompts; the last step is always one."""
    output_folder: Path
    device: Device = "auto"

    def samples_at(self, step: int) -> bool:
        """Say whether pictures for the validation prompts are drawn after this step: a function of the step alone."""
        if not self.parameters.validation_prompts:
            return False
        checkpoints = (self.steps - 1) // self.checkpoint_every_steps
        # The last round is the last step's.
        every = self.checkpoint_every_steps * max(1, -(-checkpoints // max(1, self.sample_rounds - 1)))
        return step == self.steps or (self.sample_rounds > 1 and step % every == 0)
