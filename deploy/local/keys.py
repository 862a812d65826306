"""`tunesmith keys`: API keys of the running local stack's accounts."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from deploy.local import state
from deploy.local.bootstrap import LOCAL_ACCOUNT
from deploy.local.paths import StackPaths, default_data_dir
from shared import accounts
from shared.db import Database
from shared.errors import TunesmithError

T = TypeVar("T")

app = typer.Typer(help="API keys.", no_args_is_help=True)
DatabaseUrl = Annotated[
    str | None, typer.Option(envvar="TUNESMITH_DATABASE_URL", help="PostgreSQL; without it, the local stack's.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]
AccountName = Annotated[str, typer.Option("--account", help="The account; it is made if there is none of this name.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    account: AccountName = LOCAL_ACCOUNT,
    scope: Annotated[list[str] | None, typer.Option(help="assets, tunes, images or admin; without it the first three.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; without it, it does not.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None

    async def work(session: AsyncSession) -> tuple[str, str]:
        account_id = await accounts.create_account(session, account)
        scopes = tuple(scope or accounts.USER_SCOPES)
        return await accounts.create_key(session, account_id, name=name, scopes=scopes, expires_at=expires)

    key_id, secret = _run(work, database_url, data_dir)
    print(f"{key_id}\n{secret}")


@app.command("list")
def list_(account: AccountName = LOCAL_ACCOUNT, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """List an account's keys, newest first."""

    async def work(session: AsyncSession) -> Table:
        table = Table("id", "name", "key", "scopes", "expires", "revoked", box=None)
        for key in await accounts.list_keys(session, await accounts.create_account(session, account)):
            row = (key.id, key.name, key.hint + "...", " ".join(key.scopes), key.expires_at or "", key.revoked_at or "")
            table.add_row(*map(str, row))
        return table

    Console().print(_run(work, database_url, data_dir))


@app.command("revoke")
def revoke(key_id: str, account: AccountName = LOCAL_ACCOUNT, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """End a key at once."""

    async def work(session: AsyncSession) -> None:
        await accounts.revoke_key(session, await accounts.create_account(session, account), key_id)

    _run(work, database_url, data_dir)
    print(f"{key_id} is revoked")


def _run(work: Callable[[AsyncSession], Awaitable[T]], database_url: str | None, data_dir: Path | None) -> T:
    running = state.read(StackPaths((data_dir or default_data_dir()).resolve()))
    url = database_url or (running.env["TUNESMITH_DATABASE_URL"] if running else None)
    if url is None:
        typer.echo("--database-url: not given, and no local stack runs", err=True)
        raise typer.Exit(1)

    async def inside() -> T:
        database = Database(url)
        try:
            async with database.begin() as session:
                return await work(session)
        finally:
            await database.close()

    try:
        return asyncio.run(inside())
    except TunesmithError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
