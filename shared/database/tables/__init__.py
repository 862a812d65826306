"""Every table, one module a subject; `docs/architecture.md` says which context writes which table."""

from shared.database.tables.accounts import Account, ApiKey, Login, LoginCode, RequestRow
from shared.database.tables.assets import AccountUsage, Asset, AssetName, Blob, LoraRegistration, PartUpload
from shared.database.tables.base import Base, Context
from shared.database.tables.datasets import Dataset
from shared.database.tables.generations import Generation, GenerationProgress
from shared.database.tables.idempotency import IDEMPOTENCY
from shared.database.tables.messaging import INBOXES, OUTBOXES
from shared.database.tables.tunes import Checkpoint, Sample, Trainer, Tune, TuneEvent, TuneFile
from shared.database.tables.webhooks import WebhookDelivery, WebhookSecret

__all__ = [
    "IDEMPOTENCY",
    "INBOXES",
    "OUTBOXES",
    "Account",
    "AccountUsage",
    "ApiKey",
    "Asset",
    "AssetName",
    "Base",
    "Blob",
    "Checkpoint",
    "Context",
    "Dataset",
    "Generation",
    "GenerationProgress",
    "Login",
    "LoginCode",
    "LoraRegistration",
    "PartUpload",
    "RequestRow",
    "Sample",
    "Trainer",
    "Tune",
    "TuneEvent",
    "TuneFile",
    "WebhookDelivery",
    "WebhookSecret",
]
