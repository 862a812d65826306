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
    resident_bytes: int = Field(
        default=16 * 2**30, ge=0, description="Memory for the weights of loaded models; the model unused for longest is evicted."
    )
    resident_loras: int = Field(default=16, ge=1, description="LoRAs kept loaded on each checkpoint.")
    checkpoint_cache_bytes: int = Field(default=100 * 2**30, ge=0, description="Disk space for unpacked checkpoints, in bytes.")
    file_cache_bytes: int = Field(default=20 * 2**30, ge=0, description="Disk space for LoRAs and other single files, in bytes.")
    torch_threads: int = Field(default=0, ge=0, description="CPU threads of torch; 0: torch decides.")
