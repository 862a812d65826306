"""Bodies and answers of the admin API."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.accounts.scopes import USER_SCOPES

MOST = 2**31 - 1
MOST_BYTES = 2**63 - 1
AccountName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=100)]
KeyName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", max_length=100)]


class Limits(BaseModel):
    """An account's own limits. A limit that is null is the platform's setting."""

    model_config = ConfigDict(extra="forbid")

    max_requests_per_minute: int | None = Field(default=None, ge=0, le=MOST)
    max_unfinished_tunes: int | None = Field(default=None, ge=0, le=MOST)
    max_images_in_flight: int | None = Field(default=None, ge=0, le=MOST)
    max_stored_bytes: int | None = Field(default=None, ge=0, le=MOST_BYTES)
    max_assets: int | None = Field(default=None, ge=0, le=MOST)


class CreateAccount(BaseModel):
    """A request for an account."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "studio", "limits": {"max_unfinished_tunes": 20}}]}
    )

    name: AccountName
    limits: Limits = Limits()


class ChangeAccount(BaseModel):
    """A change of an account's limits. A limit that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"limits": {"max_requests_per_minute": 60}}]})

    limits: Limits


class AccountAnswer(BaseModel):
    """An account."""

    id: UUID
    name: str
    is_platform: bool
    created_at: datetime
    limits: Limits


class AccountList(BaseModel):
    """A page of accounts, newest first."""

    data: list[AccountAnswer]
    has_more: bool
    total: int


class CreateKey(BaseModel):
    """A request for a key."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "laptop", "scopes": ["assets", "tunes:read"]}]}
    )

    name: KeyName = Field(description="What the key is for.")
    scopes: list[str] = Field(
        default=list(USER_SCOPES),
        min_length=1,
        max_length=20,
        description="assets, tunes, images and admin each allow reading and writing; `tunes:read` allows only reading.",
    )
    expires_at: AwareDatetime | None = None


class KeyAnswer(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    account_id: UUID
    name: str
    hint: str = Field(description="The first characters of the secret.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Precise to the minute.")


class KeyCreated(KeyAnswer):
    """A new key with its secret, which no later answer has."""

    secret: str


class KeyList(BaseModel):
    """An account's keys, newest first, the revoked ones included."""

    data: list[KeyAnswer]
