"""What an account's webhooks are signed with, as the Standard Webhooks specification has it (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import secrets
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import WebhookSecret

_PREFIX = "whsec_"
_BYTES = 32
OVERLAP = timedelta(hours=24)


class Secret(BaseModel):
    """The secret that the account's webhooks are signed with: `whsec_` and the key in base 64."""

    secret: str


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature `v1,...`: HMAC-SHA256 over id, timestamp (seconds) and body."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = hmac.digest(key, b".".join([message_id.encode(), str(timestamp).encode(), body]), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


async def secret_of(session: AsyncSession, account_id: UUID) -> str:
    """Return the account's secret; made when it is first asked for."""
    made = insert(WebhookSecret).values(account_id=account_id, secret=_new()).on_conflict_do_nothing()
    await session.execute(made)
    return (await session.scalars(select(WebhookSecret.secret).where(WebhookSecret.account_id == account_id))).one()


async def secrets_of(session: AsyncSession, account_id: UUID) -> list[str]:
    """Return all that a webhook is signed with now: the secret, and for a day after a change the one before."""
    newest = await secret_of(session, account_id)
    before = select(WebhookSecret.previous).where(
        WebhookSecret.account_id == account_id, WebhookSecret.previous_until > func.now()
    )
    previous = await session.scalar(before)
    return [newest] if previous is None else [newest, previous]


async def rotate(session: AsyncSession, account_id: UUID) -> str:
    """Replace the account's secret and return the new one; the old one signs as well for a day."""
    await secret_of(session, account_id)
    values = {"secret": _new(), "previous": WebhookSecret.secret, "previous_until": func.now() + OVERLAP}
    changed = update(WebhookSecret).where(WebhookSecret.account_id == account_id).values(values)
    return (await session.scalars(changed.returning(WebhookSecret.secret))).one()


def _new() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()
