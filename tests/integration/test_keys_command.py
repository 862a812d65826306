"""`tunesmith keys`: an operator creates, lists and revokes keys."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deploy.local.commands.keys import app
from shared.database.sessions import Database
from shared.errors import UnauthorizedError
from shared.http.auth import Authenticator

Keys = Callable[..., Awaitable[Result]]


@pytest.fixture
def keys(database_url: str) -> Keys:
    async def run(*arguments: str) -> Result:
        command = [*arguments, "--database-url", database_url]
        return await asyncio.to_thread(CliRunner().invoke, app, command)

    return run


async def test_a_key_is_printed_once_listed_without_its_secret_and_revoked(keys: Keys, database_url: str) -> None:
    database = Database(database_url, pool_size=2)
    authenticator = Authenticator(database)
    made = await keys("create", "dashboard", "--account", "studio", "--scope", "tunes:read", "--days", "90")
    key_id, secret = made.output.split()

    assert (await authenticator.authenticate(secret)).scopes == {"tunes:read"}
    await authenticator.flush_last_use()
    listed = (await keys("list", "--account", "studio")).output
    assert key_id in listed
    assert "tunes:read" in listed
    assert secret not in listed

    ended = await keys("revoke", key_id, "--account", "studio")
    assert (ended.exit_code, ended.output) == (0, f"{key_id} is revoked\n")
    with pytest.raises(UnauthorizedError):
        await authenticator.authenticate(secret)
    await database.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--scope", "everything"), "'everything' does not exist; choose from assets"),
        (("list", "--account", "missing"), "no account named 'missing'"),
        (("revoke", "key_1", "--account", "missing"), "no account named 'missing'"),
    ],
)
async def test_an_error_is_one_line_and_exit_code_1(keys: Keys, arguments: tuple[str, ...], said: str) -> None:
    answer = await keys(*arguments)

    assert answer.exit_code == 1
    assert said in answer.output
    assert answer.output.count("\n") == 1


async def test_a_database_that_refuses_the_command_is_one_line(database_url: str) -> None:
    address = database_url.rpartition("/")[0]
    for url, says in (
        (f"{address}/missing", 'refuses the command (database "missing" does not exist)'),
        (f"{address}/postgres", "run `tunesmith migrate`"),
    ):
        answer = await asyncio.to_thread(CliRunner().invoke, app, ["list", "--database-url", url])

        assert (answer.exit_code, answer.output.count("\n")) == (1, 1), answer.output
        assert says in answer.output
