"""A database that has no connection left is away, not broken: whoever asks is told to come back."""

from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared.database.sessions import Database
from shared.failures import is_unavailable


async def test_a_database_without_a_free_connection_is_away(database_url: str) -> None:
    database, role = Database(database_url), f"full_{uuid4().hex}"
    async with database.begin() as session:
        await session.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0"))
    full = Database(make_url(database_url).set(username=role, password="x").render_as_string(hide_password=False))
    try:
        with pytest.raises(DBAPIError) as refused:
            await full.ping()
    finally:
        async with database.begin() as session:
            await session.execute(text(f"DROP ROLE {role}"))
        await full.close()
        await database.close()

    assert "too many connections" in str(refused.value)
    assert is_unavailable(refused.value)
