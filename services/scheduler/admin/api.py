"""The admin API: accounts, their limits and their keys, for a key with the scope `admin`."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.admin.schemas import (
    AccountAnswer,
    AccountList,
    ChangeAccount,
    CreateAccount,
    CreateKey,
    KeyAnswer,
    KeyCreated,
    KeyList,
    Limits,
)
from shared.accounts import accounts, keys
from shared.database.sessions import Database
from shared.database.tables import Account, Context
from shared.database.tables.accounts import LIMITS
from shared.errors import ConflictError, InvalidError
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import GuardedRoute
from shared.ids import new_id

Admin = Annotated[Principal, Depends(require("admin"))]


def router(database: Database) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1/admin/accounts", tags=["admin"], route_class=GuardedRoute)

    @routes.post("", status_code=201, summary="Create an account")
    async def create(caller: Admin, once: Once, body: CreateAccount) -> AccountAnswer:
        return await once.run(database, Context.TUNES, caller, lambda session: _create(session, body))

    @routes.get("", summary="All accounts, newest first")
    async def list_(
        _caller: Admin,
        *,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
    ) -> AccountList:
        async with database.begin() as session:
            found, total = await accounts.list_accounts(session, offset=offset, limit=limit)
        return AccountList(data=[_answer(account) for account in found], has_more=offset + len(found) < total, total=total)

    @routes.get("/{account_id}", summary="An account")
    async def get(_caller: Admin, account_id: UUID) -> AccountAnswer:
        async with database.begin() as session:
            return _answer(await accounts.find_account(session, account_id))

    @routes.patch("/{account_id}", summary="Change an account's limits")
    async def change(_caller: Admin, account_id: UUID, body: ChangeAccount) -> AccountAnswer:
        async with database.begin() as session:
            return _answer(await accounts.set_limits(session, account_id, body.limits.model_dump(exclude_unset=True)))

    @routes.post("/{account_id}/keys", status_code=201, summary="Create a key; its secret is shown only once")
    async def create_key(caller: Admin, once: Once, account_id: UUID, body: CreateKey) -> KeyCreated:
        if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
            msg = f"expires_at: {body.expires_at.isoformat()} is in the past; choose a later time, or leave it out"
            raise InvalidError(msg, loc=("body", "expires_at"))
        key_id, secret = new_id("key"), keys.new_secret()
        async with database.begin() as session:
            await accounts.find_account(session, account_id)
            created = await once.refer(session, Context.TUNES, caller, key_id)
            if created != key_id:
                # The first answer cannot be replayed: it had the secret, which is not stored.
                msg = f"Idempotency-Key: it was used for the key {created}; if its secret is lost, revoke that and create another"
                raise ConflictError(msg)
            key = await accounts.add_key(session, account_id, key_id, secret, **body.model_dump())
        return KeyCreated(secret=secret, **KeyAnswer.model_validate(key).model_dump())

    @routes.get("/{account_id}/keys", summary="An account's keys, newest first")
    async def list_keys(_caller: Admin, account_id: UUID) -> KeyList:
        async with database.begin() as session:
            await accounts.find_account(session, account_id)
            found = await accounts.list_keys(session, account_id)
        return KeyList(data=[KeyAnswer.model_validate(key) for key in found])

    @routes.delete("/{account_id}/keys/{key_id}", summary="Revoke a key; it is refused from now on, and stays in the list")
    async def revoke(_caller: Admin, account_id: UUID, key_id: str) -> KeyAnswer:
        async with database.begin() as session:
            return KeyAnswer.model_validate(await accounts.revoke_key(session, account_id, key_id))

    return routes


async def _create(session: AsyncSession, body: CreateAccount) -> AccountAnswer:
    return _answer(await accounts.add_account(session, body.name, body.limits.model_dump()))


def _answer(account: Account) -> AccountAnswer:
    limits = Limits(**{limit: getattr(account, limit) for limit in LIMITS})
    return AccountAnswer(
        id=account.id,
        name=account.name,
        is_platform=account.is_platform,
        created_at=account.created_at,
        limits=limits,
    )
