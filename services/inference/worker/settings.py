"""Settings of an image worker."""

from typing import Literal

from pydantic import Field

from shared.settings import ServiceSettings


class WorkerSettings(ServiceSettings):
    """Which models a worker keeps loaded, and how long its claims last."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where models run; `auto` uses a GPU if any.")
    claim_s: float = Field(default=30.0, gt=0, description="How long a claim of a request lasts unless renewed, in seconds.")
    poll_s: float = Field(
        default=1.0, gt=0, description="How often an idle worker looks for requests without a hint, in seconds."
    )
    generation_attempts: int = Field(default=3, ge=1, description="Attempts at a request before it fails.")
    draw_timeout_s: float = Field(
        default=900.0, gt=0, description="How long drawing one request may take, in seconds; then it ends between two steps."
    )
    step_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="How long a draw may go on without finishing a step, in seconds; then the worker ends its process.",
    )
    resident_bytes: int = Field(
        default=16 * 2**30,
        ge=0,
        description="Memory for models, LoRAs and what a draw needs besides; what is unused for longest is evicted.",
    )
    batch_images: int = Field(
        default=4,
        ge=1,
        le=16,
        description="Images of a request that are drawn together; fewer where the memory does not suffice.",
    )
    checkpoint_cache_bytes: int = Field(default=100 * 2**30, ge=0, description="Disk space for unpacked checkpoints, in bytes.")
    file_cache_bytes: int = Field(default=20 * 2**30, ge=0, description="Disk space for LoRAs and other single files, in bytes.")
    torch_threads: int = Field(default=0, ge=0, description="CPU threads of torch; 0: torch decides.")
