"""`tunesmith admin`: accounts, their limits and their keys, over the admin API."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from tunesmith.fields import fields
from tunesmith.local import Json, connect, say, show_json, wide

admin = typer.Typer(
    help="Create accounts and keys and set limits, with a key that has the scope admin.",
    no_args_is_help=True,
    add_completion=False,
)
AccountId = Annotated[str, typer.Argument(help="Id of the account.")]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", help="A limit, as NAME=NUMBER, for example max_unfinished_tunes=20; null for the setting. Repeatable."
    ),
]


@admin.command("create")
def create(name: Annotated[str, typer.Argument(help="Name of the account.")], limit: Limits = None, json: Json = False) -> None:
    """Create an account. Prints its id."""
    with connect() as client:
        made = client.create_account(name, **fields("--limit", limit))
    if json:
        show_json(made)
    else:
        say(made.id)


@admin.command("list")
def list_(json: Json = False) -> None:
    """List all accounts with the limits of their own, newest first."""
    with connect() as client:
        found = list(client.iter_accounts())
    if json:
        show_json(found)
        return
    table = Table("id", "name", "limits", box=None)
    for item in found:
        limits = " ".join(f"{name}={value}" for name, value in item.limits.items() if value is not None)
        table.add_row(item.id, item.name, limits)
    wide().print(table)


@admin.command("show")
def show(account_id: AccountId, json: Json = True) -> None:  # noqa: ARG001 - every command takes it
    """Show an account as JSON."""
    with connect() as client:
        show_json(client.account(account_id))


@admin.command("limit")
def limit_account(account_id: AccountId, limit: Limits = None, json: Json = True) -> None:  # noqa: ARG001 - every command takes it
    """Set limits of an account, and show it as JSON."""
    with connect() as client:
        show_json(client.limit_account(account_id, **fields("--limit", limit)))


@admin.command("keys")
def keys(account_id: AccountId, json: Json = False) -> None:
    """List the keys of an account, newest first, with the revoked ones."""
    with connect() as client:
        found = client.keys(account_id)
    if json:
        show_json(found)
        return
    table = Table("id", "name", "key", "scopes", "last used", "revoked", box=None)
    for item in found:
        times = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (item.last_used_at, item.revoked_at))
        table.add_row(item.id, item.name, f"{item.hint}...", " ".join(item.scopes), *times)
    wide().print(table)


@admin.command("create-key")
def create_key(
    account_id: AccountId,
    name: Annotated[str, typer.Argument(help="What the key is for, for example laptop.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="assets, tunes, images or admin, also with :read or :write. Repeatable.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until the key expires. Default: never.")] = None,
    json: Json = False,
) -> None:
    """Create a key of an account. Prints its id and its secret; the secret is not shown again."""
    with connect() as client:
        expires = datetime.now(UTC) + timedelta(days=days) if days else None
        made = client.create_key(account_id, name, scopes=scope, expires_at=expires)
    if json:
        show_json(made)
    else:
        say(f"{made.id}\n{made.secret}")


@admin.command("revoke-key")
def revoke_key(account_id: AccountId, key_id: Annotated[str, typer.Argument(help="Id of the key.")], json: Json = False) -> None:
    """Revoke a key. It stops working at once."""
    with connect() as client:
        client.revoke_key(account_id, key_id)
    if json:
        show_json({"revoked": [key_id]})
    else:
        say(f"{key_id} is revoked")
