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
    event_poll_s: float = Field(
        default=2.0, gt=0, description="How often an event stream looks for news when no notification comes, in seconds."
    )
    event_heartbeat_s: float = Field(
        default=15.0, gt=0, description="How long an event stream may be silent before a comment is sent, in seconds."
    )
    event_stream_s: float = Field(
        default=3600.0, gt=0, description="How long an event stream lasts before its client has to ask again, in seconds."
    )
    event_streams: int = Field(default=500, ge=1, description="Event streams that one process holds open.")
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may lead to private addresses, the own network's among them."
    )
    webhook_timeout_s: float = Field(default=10.0, gt=0, description="How long a webhook may take to answer, in seconds.")
    webhook_attempts: int = Field(default=8, ge=1, description="Attempts at a webhook before it is given up.")
    webhook_retry_s: float = Field(
        default=5.0,
        gt=0,
        description="Pause after a webhook's first failed attempt, in seconds; the next are each four times as long.",
    )
    webhook_concurrency: int = Field(default=16, ge=1, description="Webhooks that one process calls at the same time.")
    webhook_kept_s: float = Field(
        default=604800.0, gt=0, description="How long it is remembered how a webhook's call ended, in seconds."
    )
