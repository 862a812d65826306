"""A key gives access to its own account, with its scopes, until it expires or is revoked."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.accounts import accounts
from shared.accounts.keys import new_secret
from shared.database.sessions import Database
from shared.errors import InvalidError, NotFoundError, UnauthorizedError
from shared.http.auth import Authenticator


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=2)
    yield database
    await database.close()


async def _make_key(database: Database, account: str = "studio", **options: object) -> tuple[str, str]:
    async with database.begin() as session:
        account_id = await accounts.create_account(session, account)
        return await accounts.create_key(
            session,
            account_id,
            name="laptop",
            scopes=accounts.USER_SCOPES,
            **options,  # pyright: ignore[reportArgumentType]
        )


async def test_a_key_leads_to_its_account_with_its_scopes(database: Database) -> None:
    key_id, secret = await _make_key(database)

    principal = await Authenticator(database).authenticate(secret)

    assert principal.key_id == key_id
    assert principal.scopes == {"assets", "tunes", "images"}
    assert not principal.is_admin


async def test_accounts_are_created_once(database: Database) -> None:
    async with database.begin() as session:
        first = await accounts.create_account(session, "studio")
        again = await accounts.create_account(session, "studio")
        other = await accounts.create_account(session, "other")

    assert first == again != other


async def test_a_key_that_was_never_made_is_refused(database: Database) -> None:
    with pytest.raises(UnauthorizedError):
        await Authenticator(database).authenticate(new_secret())


async def test_an_expired_key_is_refused(database: Database) -> None:
    _, secret = await _make_key(database, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(UnauthorizedError):
        await Authenticator(database).authenticate(secret)


async def test_a_revoked_key_is_refused_at_once_and_the_accounts_other_keys_are_not(database: Database) -> None:
    key_id, secret = await _make_key(database)
    _, sibling = await _make_key(database)
    authenticator = Authenticator(database)
    account_id = (await authenticator.authenticate(secret)).account_id

    async with database.begin() as session:
        await accounts.revoke_key(session, account_id, key_id)
        await accounts.revoke_key(session, account_id, key_id)

    with pytest.raises(UnauthorizedError):
        await authenticator.authenticate(secret)
    assert (await authenticator.authenticate(sibling)).account_id == account_id


async def test_an_account_cannot_revoke_another_accounts_key(database: Database) -> None:
    key_id, secret = await _make_key(database)
    async with database.begin() as session:
        other = await accounts.create_account(session, "other")
        with pytest.raises(NotFoundError):
            await accounts.revoke_key(session, other, key_id)

    assert await Authenticator(database).authenticate(secret)


async def test_an_unknown_scope_is_named(database: Database) -> None:
    async with database.begin() as session:
        account_id = await accounts.create_account(session, "studio")
        with pytest.raises(InvalidError, match="everything"):
            await accounts.create_key(session, account_id, name="x", scopes=("everything",))


async def test_an_unavailable_database_keeps_no_process_from_ending(database: Database) -> None:
    _, secret = await _make_key(database)
    authenticator = Authenticator(database)
    await authenticator.authenticate(secret)
    gone = Database("postgresql+asyncpg://nobody:none@127.0.0.1:1/none")
    authenticator._database = gone

    await authenticator.close()

    await gone.close()
