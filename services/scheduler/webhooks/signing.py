"""Signatures of webhooks, as the Standard Webhooks specification defines them (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import secrets
from datetime import timedelta

_PREFIX = "whsec_"
_BYTES = 32
OVERLAP = timedelta(hours=24)
"""How long the secret before a rotation still signs, so that receivers have the time to change over."""


def new_secret() -> str:
    """Return a random secret: `whsec_` and the key in base 64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature `v1,...`: HMAC-SHA256 over id, timestamp (seconds) and body."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = hmac.digest(key, b".".join([message_id.encode(), str(timestamp).encode(), body]), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
