"""Every table, one file a context; `docs/architecture.md` says which context writes which."""

from shared.tables.accounts import Account, ApiKey
from shared.tables.assets import Asset, AssetName, Blob
from shared.tables.base import Base
from shared.tables.generations import Generation
from shared.tables.idempotency import IDEMPOTENCY
from shared.tables.messaging import INBOXES, OUTBOXES, Context
from shared.tables.tunes import Checkpoint, Sample, Trainer, Tune, TuneEvent, TuneFile
from shared.tables.webhooks import WebhookDelivery, WebhookSecret

__all__ = [
    "IDEMPOTENCY",
    "INBOXES",
    "OUTBOXES",
    "Account",
    "ApiKey",
    "Asset",
    "AssetName",
    "Base",
    "Blob",
    "Checkpoint",
    "Context",
    "Generation",
    "Sample",
    "Trainer",
    "Tune",
    "TuneEvent",
    "TuneFile",
    "WebhookDelivery",
    "WebhookSecret",
]
