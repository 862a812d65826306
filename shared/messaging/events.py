"""Every event on Kafka, one model each, named in the past tense.

On Kafka an event is a CloudEvents 1.0 message in binary mode: headers `ce_id`, `ce_type`, `ce_source`, `ce_time` and
`ce_specversion`, a JSON body, and a key. Changes only add: every event that was ever published must still parse
(`tests/contract/golden`).
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """Something that happened to one aggregate; `version` is the aggregate's after it happened.

    Handlers do not compare versions. An event says which rows to look at, and what the database has decides, so that a late or
    repeated event is harmless.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    type: ClassVar[str]
    topic: ClassVar[str]
    key_field: ClassVar[str]

    version: int

    @property
    def key(self) -> str:
        """The Kafka key; events with the same key stay in order."""
        return getattr(self, self.key_field)


class AssetEventBase(Event):
    """An event about an asset."""

    topic = "assets"
    key_field = "asset_id"

    asset_id: str
    account_id: str


class AssetCreated(AssetEventBase):
    """An asset was created and waits for its bytes."""

    type = "asset.created"
    asset_type: str
    name: str


class AssetUploaded(AssetEventBase):
    """The bytes are in staging; intake may check them."""

    type = "asset.uploaded"


class AssetReady(AssetEventBase):
    """The asset passed intake and can be used by its name. `tune_id` names the tune that made it, if one did."""

    type = "asset.ready"
    asset_type: str
    name: str
    tune_id: str | None = None


class AssetRejected(AssetEventBase):
    """Intake refused the asset. `tune_id` names the tune that made it, if one did."""

    type = "asset.rejected"
    reason: str
    tune_id: str | None = None


class AssetDeleted(AssetEventBase):
    """The asset was deleted; its name is free again."""

    type = "asset.deleted"


class TuneEventBase(Event):
    """An event about a tune; `version` is also the event's sequence number."""

    topic = "tunes"
    key_field = "tune_id"

    tune_id: str
    account_id: str


class TuneQueued(TuneEventBase):
    """The tune's files are ready; a trainer may claim it."""

    type = "tune.queued"


class TuneRequeued(TuneEventBase):
    """The tune lost its trainer and waits for another. `reason` is `preempted`, `lease_expired` or an error's code."""

    type = "tune.requeued"
    reason: str
    attempt: int


class TuneStarted(TuneEventBase):
    """A trainer claimed the tune; it starts from `step` (0, or that of the checkpoint that it resumes from)."""

    type = "tune.started"
    trainer: str
    epoch: int
    attempt: int
    step: int


class TuneProgressed(TuneEventBase):
    """Training went on: the steps done, the mean loss since the last report, and the speed.

    `losses` has the loss of each step since the last report, `step` included; after an outage the first ones may be missing.
    """

    type = "tune.progressed"
    epoch: int
    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    losses: list[float] = []


class TuneCheckpointed(TuneEventBase):
    """A checkpoint, from which the training can resume, is in the store."""

    type = "tune.checkpointed"
    epoch: int
    step: int


class TuneSample(BaseModel):
    """An image that a tune in training generated for one of its validation prompts."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    number: int
    prompt: str
    seed: int
    key: str


class TuneSampled(TuneEventBase):
    """Images for the validation prompts, generated after `step` steps, are in the store."""

    type = "tune.sampled"
    epoch: int
    step: int
    samples: list[TuneSample]


class TuneTrained(TuneEventBase):
    """The LoRA is stored under the tune's prefix and waits to be registered in the library."""

    type = "tune.trained"
    epoch: int
    name: str
    engine: str
    trigger_word: str
    base_asset_id: str
    base_sha256: str
    shape_class: str
    lora_key: str
    lora_sha256: str
    lora_size_bytes: int


class TuneSucceeded(TuneEventBase):
    """The LoRA is in the library and can be used by the tune's name."""

    type = "tune.succeeded"
    lora_asset_id: str


class TuneFailed(TuneEventBase):
    """The tune ended without a LoRA; `code` and `message` say why."""

    type = "tune.failed"
    code: str
    message: str


class TuneCancelRequested(TuneEventBase):
    """A user asked for the tune to stop; its trainer still has to stop it."""

    type = "tune.cancel_requested"


class TuneCancelled(TuneEventBase):
    """The tune was stopped on request."""

    type = "tune.cancelled"


class TuneDeleted(TuneEventBase):
    """The tune was deleted; its LoRA and its training images stay."""

    type = "tune.deleted"


class ImageRequested(Event):
    """Images were requested. The key is the affinity: requests for one checkpoint and the same LoRAs reach the same worker."""

    type = "image.requested"
    topic = "images.requests"
    key_field = "affinity"

    generation_id: str
    affinity: str


class ImageGenerated(Event):
    """The images are in the store, and their keys in the generation's row."""

    type = "image.generated"
    topic = "images.results"
    key_field = "generation_id"

    generation_id: str


class ImageFailed(Event):
    """The generation ended without images; the error is in its row."""

    type = "image.failed"
    topic = "images.results"
    key_field = "generation_id"

    generation_id: str
    code: str
    message: str


def _leaves(base: type[Event]) -> list[type[Event]]:
    subclasses = base.__subclasses__()
    return [leaf for child in subclasses for leaf in _leaves(child)] if subclasses else [base]


EVENTS: dict[str, type[Event]] = {event.type: event for event in _leaves(Event)}
"""Every event by its CloudEvents type."""
