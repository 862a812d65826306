"""Settings of the trainer."""

from pydantic import Field

from services.trainer.engine.config import Device, Phase
from shared.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """The settings of the trainer, besides those of every service."""

    device: Device = Field(default="auto", description="Where to train; `auto` is the GPU where there is one.")
    lease_s: float = Field(default=30.0, gt=0, description="How long a lease lasts after its last renewal, in seconds.")
    renew_every_s: float = Field(default=10.0, gt=0, description="How often the lease is renewed, in seconds.")
    poll_s: float = Field(default=2.0, gt=0, description="How often the queue is polled when no hint comes, in seconds.")
    poll_max_s: float = Field(
        default=20.0, gt=0, description="How often an idle trainer polls the queue at the least, while hints arrive, in seconds."
    )
    exit_when_idle_s: float | None = Field(
        default=None,
        ge=0,
        description="How long a trainer finds no tune to claim before it ends with status 0, in seconds; empty: it never does.",
    )
    running_per_account: int = Field(
        default=4, ge=1, description="Tunes of one account that all trainers together train at the same time, at most."
    )
    progress_every_s: float = Field(
        default=1.0, ge=0.1, description="Time between two writes of a tune's progress to the database, in seconds."
    )
    heartbeat_every_s: float = Field(default=5.0, gt=0, description="How often the trainer records that it is alive, in seconds.")
    checkpoint_every_steps: int = Field(default=50, ge=1, description="Steps between two checkpoints of a tune.")
    silence_download_s: float = Field(default=900.0, gt=0, description="Longest download of a tune's inputs, in seconds.")
    silence_load_s: float = Field(default=300.0, gt=0, description="Longest time to load a base into memory, in seconds.")
    silence_cache_s: float = Field(default=300.0, gt=0, description="Longest time to encode images and captions, in seconds.")
    silence_prior_s: float = Field(
        default=300.0, gt=0, description="Longest time between two sampler steps of class images, in seconds."
    )
    silence_train_s: float = Field(
        default=120.0, gt=0, description="Longest time between two reports of training steps, in seconds."
    )
    silence_first_step_s: float = Field(
        default=900.0, gt=0, description="Longest first step, in which a GPU may have to compile its kernels, in seconds."
    )
    silence_sample_s: float = Field(
        default=300.0, gt=0, description="Longest time between two sampler steps of validation images, in seconds."
    )
    silence_save_s: float = Field(default=120.0, gt=0, description="Longest time to write the LoRA's file, in seconds.")
    silence_publish_s: float = Field(default=900.0, gt=0, description="Longest upload of the LoRA, in seconds.")
    unreachable_limit_s: float = Field(
        default=900.0, gt=0, description="How long training goes on while the lease cannot be renewed, in seconds."
    )
    drain_s: float = Field(
        default=15.0, gt=0, description="How long a stopping trainer waits for its last checkpoint to be stored, in seconds."
    )
    base_cache_bytes: int = Field(
        default=40 * 2**30,
        ge=0,
        description="Disk space for unpacked base checkpoints, in bytes; those unused for the longest time are deleted first.",
    )

    def silence_s(self, phase: Phase) -> float:
        """Return how long an attempt may report nothing in this phase before it counts as hung."""
        return float(getattr(self, f"silence_{phase}_s"))
