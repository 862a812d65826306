"""What PostgreSQL really answers, as the predicates of `shared.failures` class it."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared.database.sessions import Database
from shared.failures import is_unavailable, is_value


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


async def test_a_database_without_a_free_connection_is_unavailable(database: Database, database_url: str) -> None:
    role = f"full_{uuid4().hex}"
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

    assert "too many connections" in str(refused.value)
    assert is_unavailable(refused.value)


async def test_a_server_that_cannot_be_reached_is_unavailable(database_url: str) -> None:
    for host in ("127.0.0.1", "localhost", "no-such-host.invalid"):
        nowhere = Database(make_url(database_url).set(host=host, port=1).render_as_string(hide_password=False))
        with pytest.raises(OSError) as refused:
            await nowhere.ping()
        await nowhere.close()

        assert is_unavailable(refused.value)


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(30)", "SELECT 1"])
async def test_a_connection_that_breaks_is_unavailable(database: Database, statement: str) -> None:
    with pytest.raises(DBAPIError) as broken:
        async with database.begin() as session:
            process = await session.scalar(text("SELECT pg_backend_pid()"))
            running = asyncio.create_task(session.execute(text(statement))) if "sleep" in statement else None
            async with database.begin() as other, asyncio.timeout(10):
                while running and not await other.scalar(
                    text("SELECT 1 FROM pg_stat_activity WHERE pid = :pid AND query LIKE 'SELECT pg_sleep%'"), {"pid": process}
                ):
                    pass
                await other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": process})
            await (running or session.execute(text(statement)))

    assert is_unavailable(broken.value)


async def test_a_transaction_that_lost_a_deadlock_is_to_be_repeated(database: Database) -> None:
    async with database.begin() as session:
        await session.execute(text("CREATE TABLE pair AS SELECT number FROM generate_series(1, 2) AS number"))
    holds_one = [asyncio.Event(), asyncio.Event()]

    async def lock(first: int) -> None:
        async with database.begin() as session:
            update = text("UPDATE pair SET number = number WHERE number = :number")
            await session.execute(update, {"number": 1 + first})
            holds_one[first].set()
            await holds_one[1 - first].wait()
            await session.execute(update, {"number": 2 - first})

    ended = await asyncio.gather(lock(0), lock(1), return_exceptions=True)

    [lost] = [error for error in ended if error is not None]
    assert "deadlock detected" in str(lost)
    assert is_unavailable(lost)


async def test_a_migration_under_a_prepared_statement_is_to_be_repeated(database_url: str) -> None:
    database, select = Database(database_url, pool_size=1), text("SELECT * FROM migrated")
    for statement in (text("CREATE TABLE migrated (number int)"), select, text("ALTER TABLE migrated ADD COLUMN name text")):
        async with database.begin() as session:
            await session.execute(statement)

    with pytest.raises(DBAPIError) as stale:
        async with database.begin() as session:
            await session.execute(select)
    async with database.begin() as session:
        await session.execute(select)
    await database.close()

    assert "cached statement plan is invalid" in str(stale.value)
    assert is_unavailable(stale.value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
async def test_text_that_cannot_be_stored_is_a_wrong_value_and_no_outage(database: Database, value: str) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with database.begin() as session:
            await session.execute(text("SELECT CAST(:value AS text)"), {"value": value})

    assert is_value(refused.value)
    assert not is_unavailable(refused.value)


async def test_a_number_out_of_range_is_a_wrong_value_and_no_outage(database: Database) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with database.begin() as session:
            await session.execute(text("SELECT CAST(:value AS int)"), {"value": 2**40})

    assert is_value(refused.value)
    assert not is_unavailable(refused.value)


SECRET = "a photo of sks1 in the secret garden"
WRITES = {
    "a row that breaks a check": (
        """INSERT INTO generations (id, account_id, engine, affinity, inputs, state, attempt, claim_epoch, version)
        VALUES (:text, gen_random_uuid(), 'sd', 'a', '{}', 'no such state', 0, 0, 1)""",
        SECRET,
    ),
    "a row without a value": ("INSERT INTO tune_files (tune_id, caption) VALUES ('t', :text)", SECRET),
    "a key that exists": (
        """INSERT INTO blobs (key, owner, state, size_bytes, content_type)
        SELECT :text, 'upload', 'staging', 0, '' FROM generate_series(1, 2)""",
        SECRET,
    ),
    "a NUL": ("SELECT CAST(:text AS text)", SECRET + "\0"),
    "a lone surrogate": ("SELECT CAST(:text AS text)", SECRET + "\udcff"),
    "another type": ("SELECT CAST(:text AS integer)", SECRET),
    "text for a UUID": ("SELECT CAST(:text AS uuid)", SECRET),
    "text that the server casts": ("SELECT CAST(CAST(:text AS text) AS integer)", SECRET),
    "broken JSON": ("SELECT CAST(CAST(:text AS text) AS jsonb)", SECRET),
    "a statement that is wrong": ("SELECT :text FROM no_such_table", SECRET),
}


@pytest.mark.parametrize("name", WRITES)
async def test_no_error_repeats_a_value_of_its_statement(database: Database, name: str) -> None:
    statement, value = WRITES[name]
    with pytest.raises(DBAPIError) as refused:
        async with database.begin() as session:
            await session.execute(text(statement), {"text": value})

    shown = "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    assert "secret garden" not in shown
    assert "SELECT" in shown or "INSERT" in shown, "the statement is shown"
