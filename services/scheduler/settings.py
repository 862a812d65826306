"""Settings of the scheduler."""

from pydantic import Field

from shared.settings import ApiSettings


class SchedulerSettings(ApiSettings):
    """Limits of a tune, and how long the scheduler waits for others."""

    max_attempts: int = Field(default=3, ge=1, description="Attempts a tune gets; preemption does not use one up.")
    reap_every_s: float = Field(default=2.0, gt=0, description="How often expired leases are looked for, in seconds.")
    lease_s: float = Field(
        default=30.0, gt=0, description="How long a lease lasts; after a database outage none is taken for this long."
    )
    files_timeout_s: float = Field(
        default=900.0, gt=0, description="How long a tune waits for the verdict on its files, in seconds."
    )
    requeue_hint_s: float = Field(
        default=30.0, gt=0, description="How long a tune may stand in the queue before trainers are told again, in seconds."
    )
    blob_grace_s: float = Field(
        default=3600.0, ge=0, description="How long a blob that nobody needs is kept before it is deleted, in seconds."
    )
    blob_staging_s: float = Field(
        default=86400.0, gt=0, description="How long a writer may take between announcing a blob and storing it, in seconds."
    )
