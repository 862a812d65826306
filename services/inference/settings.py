"""Settings of the image API."""

from pydantic import Field

from shared.settings import ApiSettings


class InferenceSettings(ApiSettings):
    """How long a request waits, how large it may be, and how often workers may try it."""

    generate_timeout_s: float = Field(
        default=120.0, gt=0, description="How long `/generate` waits for its images before it answers 504, in seconds."
    )
    generation_attempts: int = Field(default=3, ge=1, description="Attempts at a request before it fails.")
    generation_hint_s: float = Field(
        default=10.0, gt=0, description="How long a request may stay unclaimed before its event is published again, in seconds."
    )
    generation_grace_s: float = Field(
        default=86400.0,
        ge=0,
        description="How long images are kept, in seconds; a repeated request is answered from them.",
    )
    generation_kept_s: float = Field(
        default=7 * 86400.0,
        gt=0,
        description="How long a request and its prompts are kept after it finished, in seconds.",
    )
    event_poll_s: float = Field(
        default=2.0,
        gt=0,
        description="How often a stream of progress reads the database without a notification, in seconds.",
    )
    event_heartbeat_s: float = Field(
        default=15.0, gt=0, description="How long a stream of progress may be silent before it sends a comment, in seconds."
    )
    event_stream_s: float = Field(
        default=3600.0, gt=0, description="How long a stream of progress lasts before its client has to reconnect, in seconds."
    )
    event_streams: int = Field(default=500, ge=1, description="Streams of progress that one process holds open at the same time.")
    max_body_bytes: int = Field(
        default=32 * 2**20, ge=1024, description="Largest body of a request, including its images, in bytes."
    )
    max_pixels: int = Field(
        default=16_000_000, ge=1024, description="Largest image that is used, in pixels; larger ones are scaled down."
    )
    refiner_checkpoint: str = Field(
        default="", description="The checkpoint asset of the SDXL refiner, such as `octoai:sdxl-refiner`; empty: no refiner."
    )
