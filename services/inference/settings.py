"""Settings of the image API."""

from pydantic import Field

from shared.settings import ApiSettings


class InferenceSettings(ApiSettings):
    """How long a request waits, what may come with it, and when a claim of a worker counts as lost."""

    generate_timeout_s: float = Field(
        default=120.0, gt=0, description="How long `/generate` waits for its images before it answers 504, in seconds."
    )
    generation_attempts: int = Field(default=3, ge=1, description="Workers that may try a request before it fails.")
    generation_hint_s: float = Field(
        default=10.0, gt=0, description="How long a request may go unclaimed before workers are told again, in seconds."
    )
    generation_grace_s: float = Field(
        default=86400.0,
        ge=0,
        description="How long images are kept after they were made, in seconds; a repeated request is answered from them.",
    )
    max_body_bytes: int = Field(
        default=32 * 2**20, ge=1024, description="Largest body of a request, its pictures included, in bytes."
    )
    max_pixels: int = Field(default=16_000_000, ge=1024, description="Largest picture that is accepted, in pixels.")
    refiner_checkpoint: str = Field(
        default="", description="The SDXL refiner's checkpoint asset, e.g. `octoai:sdxl-refiner`; empty for none."
    )
