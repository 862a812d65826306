"""Settings of the trainer."""

from pydantic import Field

from services.trainer.engine.config import Device, Phase
from shared.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """What the trainer needs besides what every service needs."""

    device: Device = Field(default="auto", description="Where to train; `auto` is the GPU where there is one.")
    lease_s: float = Field(default=30.0, gt=0, description="How long a lease lasts unless it is renewed, in seconds.")
    renew_every_s: float = Field(default=10.0, gt=0, description="How often the lease is renewed, in seconds.")
    poll_s: float = Field(default=2.0, gt=0, description="How often the queue is looked at when no hint came, in seconds.")
    running_per_account: int = Field(default=4, ge=1, description="Tunes of one account that may be trained at a time.")
    progress_every_s: float = Field(
        default=1.0, ge=0.1, description="How often progress is written to the database, at most, in seconds."
    )
    heartbeat_every_s: float = Field(default=5.0, gt=0, description="How often the trainer says that it is there, in seconds.")
    checkpoint_every_steps: int = Field(default=50, ge=1, description="Steps between two checkpoints of a tune.")
    silence_download_s: float = Field(default=900.0, gt=0, description="Longest download of a tune's inputs, in seconds.")
    silence_load_s: float = Field(default=300.0, gt=0, description="Longest load of a base into memory, in seconds.")
    silence_cache_s: float = Field(default=300.0, gt=0, description="Longest encoding of images and captions, in seconds.")
    silence_prior_s: float = Field(
        default=300.0, gt=0, description="Longest silence between two sampler steps of class pictures, in seconds."
    )
    silence_train_s: float = Field(default=120.0, gt=0, description="Longest silence between two reports of steps, in seconds.")
    silence_sample_s: float = Field(
        default=300.0, gt=0, description="Longest silence between two sampler steps of validation pictures, in seconds."
    )
    silence_save_s: float = Field(default=120.0, gt=0, description="Longest writing of the LoRA, in seconds.")
    silence_publish_s: float = Field(default=900.0, gt=0, description="Longest upload of the LoRA, in seconds.")
    unreachable_limit_s: float = Field(
        default=900.0, gt=0, description="How long a tune goes on while its lease cannot be renewed, in seconds."
    )
    drain_s: float = Field(
        default=15.0, gt=0, description="How long a stopping trainer waits for its last checkpoint to be stored, in seconds."
    )
    base_cache_bytes: int = Field(
        default=40 * 2**30, ge=0, description="Base checkpoints kept on disk, in bytes; the longest unused go first."
    )

    def silence_s(self, phase: Phase) -> float:
        """Return how long a phase may report nothing before the child counts as hung."""
        return float(getattr(self, f"silence_{phase}_s"))
