"""`tunesmith keys`: API keys of accounts, in the running local stack's database or a given one."""

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
from shared.accounts import accounts
from shared.accounts.scopes import USER_SCOPES
from shared.database.sessions import Database
from shared.errors import TunesmithError

T = TypeVar("T")

app = typer.Typer(help="API keys.", no_args_is_help=True)
DatabaseUrl = Annotated[
    str | None, typer.Option(envvar="TUNESMITH_DATABASE_URL", help="PostgreSQL; without it, the local stack's.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]
AccountName = Annotated[str, typer.Option("--account", help="The account's name.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="assets, tunes, images or admin, both to read and to write, or one of them, as in tunes:read; may be given "
        "several times; without it assets, tunes and images.",
    ),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    account: Annotated[str, typer.Option("--account", help="The account; it is made if there is none of this name.")] = (
        LOCAL_ACCOUNT
    ),
    scope: Scopes = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until it expires; without it, it does not.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print its id and its secret, this once."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None

    async def work(session: AsyncSession) -> tuple[str, str]:
        account_id = await accounts.create_account(session, account)
        return await accounts.create_key(session, account_id, name=name, scopes=scope or USER_SCOPES, expires_at=expires)

    key_id, secret = _run(work, database_url, data_dir)
    print(f"{key_id}\n{secret}")


@app.command("list")
def list_(account: AccountName = LOCAL_ACCOUNT, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """List an account's keys, newest first, the revoked ones included."""

    async def work(session: AsyncSession) -> Table:
        table = Table("id", "name", "key", "scopes", "last used", "expires", "revoked", box=None)
        for key in await accounts.list_keys(session, await accounts.named(session, account)):
            times = (_minute(at) for at in (key.last_used_at, key.expires_at, key.revoked_at))
            table.add_row(key.id, key.name, key.hint + "...", " ".join(key.scopes), *times)
        return table

    # Whole lines, whatever reads them: a terminal wraps, and a pipe has no width.
    Console(width=None if Console().is_terminal else 200).print(_run(work, database_url, data_dir))


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    account: AccountName = LOCAL_ACCOUNT,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """End a key at once."""

    async def work(session: AsyncSession) -> None:
        await accounts.revoke_key(session, await accounts.named(session, account), key_id)

    _run(work, database_url, data_dir)
    print(f"{key_id} is revoked")


def _minute(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if at else ""


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
