"""Accounts and their keys, for a key with the scope `admin`.

Written from `asynchronous/admin.py` by `python -m tests.support.synchronous`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from tunesmith.models import Account, Key
from tunesmith.synchronous.transport import Transport


class Admin(Transport):
    """The part of the client for operators."""

    def create_account(self, name: str, **limits: int | None) -> Account:
        """Create an account. Limits that are not given are the server's settings.

        >>> studio = client.create_account("studio", max_unfinished_tunes=20)
        >>> key = client.create_key(studio.id, "laptop", scopes=["assets", "tunes:read"])
        >>> key.scopes, key.secret is not None
        (['assets', 'tunes:read'], True)
        """
        return Account.model_validate(self._call("POST", "/v1/admin/accounts", json={"name": name, "limits": limits}))

    def iter_accounts(self) -> Iterator[Account]:
        """Yield all accounts, newest first, page by page as they are read."""
        for item in self._pages("/v1/admin/accounts", {}):
            yield Account.model_validate(item)

    def account(self, account_id: str) -> Account:
        """Return an account."""
        return Account.model_validate(self._call("GET", f"/v1/admin/accounts/{account_id}"))

    def limit_account(self, account_id: str, **limits: int | None) -> Account:
        """Set limits of an account and return it. None returns a limit to the server's setting; others stay."""
        return Account.model_validate(self._call("PATCH", f"/v1/admin/accounts/{account_id}", json={"limits": limits}))

    def create_key(
        self, account_id: str, name: str, *, scopes: Sequence[str] | None = None, expires_at: datetime | None = None
    ) -> Key:
        """Create a key of an account and return it with its secret, which no later answer has."""
        given = {"scopes": list(scopes) if scopes else None, "expires_at": expires_at.isoformat() if expires_at else None}
        body = {"name": name} | {key: value for key, value in given.items() if value}
        return Key.model_validate(self._call("POST", f"/v1/admin/accounts/{account_id}/keys", json=body))

    def keys(self, account_id: str) -> list[Key]:
        """Return the keys of an account, newest first, the revoked ones included."""
        answer = self._call("GET", f"/v1/admin/accounts/{account_id}/keys")
        return [Key.model_validate(item) for item in answer["data"]]

    def revoke_key(self, account_id: str, key_id: str) -> None:
        """Revoke a key. It stops working at once."""
        self._delete(f"/v1/admin/accounts/{account_id}/keys/{key_id}")
