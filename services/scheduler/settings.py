"""Settings of the scheduler."""

from pydantic import Field

from shared.settings import ApiSettings


class SchedulerSettings(ApiSettings):
    """The scheduler's limits, intervals and timeouts."""

    max_attempts: int = Field(
        default=3, ge=1, description="Attempts at a tune before it fails; a preempted attempt does not count."
    )
    reap_every_s: float = Field(default=2.0, gt=0, description="Seconds between two searches for expired leases.")
    lease_s: float = Field(
        default=30.0,
        gt=0,
        description="How long a lease lasts, in seconds; after a database outage no lease is taken from its trainer for as long.",
    )
    files_timeout_s: float = Field(
        default=900.0, gt=0, description="How long a tune waits for the verdicts on its files, in seconds."
    )
    requeue_hint_s: float = Field(
        default=30.0, gt=0, description="How long a tune may be queued before `tune.queued` is published again, in seconds."
    )
    blob_grace_s: float = Field(
        default=3 * 3600.0,
        ge=0,
        description="How long a blob that nothing refers to is kept, in seconds; longer than a URL of a sample is valid.",
    )
    blob_staging_s: float = Field(
        default=86400.0, gt=0, description="How long a writer may take between announcing a blob and storing it, in seconds."
    )
    event_poll_s: float = Field(
        default=2.0, gt=0, description="How often an event stream reads the database while no notification comes, in seconds."
    )
    event_heartbeat_s: float = Field(
        default=15.0, gt=0, description="How long an event stream may be silent before it sends a comment, in seconds."
    )
    event_stream_s: float = Field(
        default=3600.0, gt=0, description="How long an event stream lasts before its client has to reconnect, in seconds."
    )
    event_streams: int = Field(default=500, ge=1, description="Event streams that one process holds open at the same time.")
    tune_events_kept_s: float = Field(
        default=30 * 86400.0,
        gt=0,
        description="How long the events of a tune that has ended are kept, in seconds; the last one is kept with the tune.",
    )
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may call private addresses, such as those of the internal network."
    )
    webhook_timeout_s: float = Field(default=10.0, gt=0, description="How long a webhook may take to answer, in seconds.")
    webhook_attempts: int = Field(default=8, ge=1, description="Attempts at a webhook call before it has failed.")
    webhook_retry_s: float = Field(
        default=5.0,
        gt=0,
        description="Pause after the first failed attempt at a webhook call, in seconds; each later pause is four times as long.",
    )
    webhook_concurrency: int = Field(default=16, ge=1, description="Webhooks that one process calls at the same time.")
    webhook_kept_s: float = Field(
        default=604800.0, gt=0, description="How long a webhook call is listed after its end, in seconds."
    )
