"""Bodies and answers of the console's sign-in."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class SignIn(BaseModel):
    """What a browser signs in with: an API key, or the code of a printed link."""

    model_config = ConfigDict(extra="forbid")

    key: SecretStr | None = Field(default=None, max_length=200)
    code: SecretStr | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _has_one(self) -> "SignIn":
        if (self.key is None) == (self.code is None):
            msg = "give either `key` or `code`"
            raise ValueError(msg)
        return self


class CodeCreated(BaseModel):
    """A code that signs one browser in, once, until it expires."""

    code: str
    expires_at: datetime


class AccountName(BaseModel):
    """The account that a browser is signed in to."""

    id: UUID
    name: str


class KeyName(BaseModel):
    """The key that a browser is signed in with."""

    id: str
    name: str
    hint: str
    expires_at: datetime | None


class LoginAnswer(BaseModel):
    """Who is signed in, and what the key may do."""

    account: AccountName
    key: KeyName
    scopes: list[str]
