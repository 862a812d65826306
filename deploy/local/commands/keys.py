"""`tunesmith keys`: the API keys of accounts, in the running local stack's database or another one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from deploy.local.bootstrap import LOCAL_ACCOUNT
from deploy.local.commands.options import DatabaseUrl, DataDir, address, exit_on_database_error
from shared.accounts import accounts
from shared.accounts.scopes import USER_SCOPES
from shared.database.sessions import Database

T = TypeVar("T")

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True, add_completion=False)
AccountName = Annotated[str, typer.Option("--account", help="Name of the account.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="What the key may do: assets, tunes, images or admin. Add :read or :write to allow only that, for example "
        "tunes:read. Repeatable. Default: assets, tunes and images.",
    ),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, for example: laptop.")],
    account: Annotated[str, typer.Option("--account", help="Name of the account. It is created if it does not exist.")] = (
        LOCAL_ACCOUNT
    ),
    scope: Scopes = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until the key expires. Default: never.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key. Prints its id and its secret; the secret is not shown again."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None

    async def work(session: AsyncSession) -> tuple[str, str]:
        account_id = await accounts.create_account(session, account)
        return await accounts.create_key(session, account_id, name=name, scopes=scope or USER_SCOPES, expires_at=expires)

    key_id, secret = _run(work, database_url, data_dir)
    print(f"{key_id}\n{secret}")


@app.command("list")
def list_(account: AccountName = LOCAL_ACCOUNT, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """List an account's keys, newest first, with the revoked ones."""

    async def work(session: AsyncSession) -> Table:
        table = Table("id", "name", "key", "scopes", "last used", "expires", "revoked", box=None)
        for key in await accounts.list_keys(session, await accounts.named(session, account)):
            times = (_minute(at) for at in (key.last_used_at, key.expires_at, key.revoked_at))
            table.add_row(key.id, key.name, key.hint + "...", " ".join(key.scopes), *times)
        return table

    # A script that reads the table through a pipe gets whole rows: rich would take a pipe to be 80 columns wide.
    Console(width=None if Console().is_terminal else 200).print(_run(work, database_url, data_dir))


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `tunesmith keys list` shows it.")],
    account: AccountName = LOCAL_ACCOUNT,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. It stops working at once."""

    async def work(session: AsyncSession) -> None:
        await accounts.revoke_key(session, await accounts.named(session, account), key_id)

    _run(work, database_url, data_dir)
    print(f"{key_id} is revoked")


def _minute(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if at else ""


def _run(work: Callable[[AsyncSession], Awaitable[T]], database_url: str | None, data_dir: Path | None) -> T:
    url = address("--database-url", database_url, "TUNESMITH_DATABASE_URL", data_dir)

    async def inside() -> T:
        database = Database(url)
        try:
            async with database.begin() as session:
                return await work(session)
        finally:
            await database.close()

    with exit_on_database_error(url):
        return asyncio.run(inside())
