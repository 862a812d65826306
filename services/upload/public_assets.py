"""Public checkpoints, which the operator registers and every account may use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload import repository, transitions
from shared.accounts import accounts, names
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, hash_file
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.engines import Engine
from shared.errors import InvalidError, NotFoundError
from shared.formats import checkpoint
from shared.ids import new_id, new_ulid


async def register_checkpoint(database: Database, blobs: Blobs, path: Path, *, name: str, description: str = "") -> str:
    """Make a packed checkpoint the public asset `octoai:{name}` and return the asset's id.

    Registering the same bytes again changes nothing. Other bytes replace the old ones, which are kept while a tune that
    started from them runs. Raises InvalidError for a file that is no checkpoint.
    """
    info, stored = checkpoint.read_file(path), hash_file(path)
    async with database.begin() as session:
        account_id = await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
        found = await repository.own(session, account_id, name)
        if found is not None and found.sha256 == stored.sha256:
            return found.id
        asset_id = found.id if found else new_id("asset")
        # Each version has a key of its own, so that readers of the previous version are not disturbed.
        key = f"assets/{asset_id}/{new_ulid()}.checkpoint"
        await blob_rows.stage(session, Context.UPLOAD, key)
    await blobs.put_file(key, path)
    values = {
        "description": description,
        "data": {
            "asset_type": "checkpoint",
            "engine": info.engine.value,
            "file_format": "safetensors",
            **({"data_type": "fp16"} | info.data),
        },
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "blob_key": key,
    }
    async with database.begin() as session:
        await blob_rows.commit(session, key, stored)
        return await _put(session, name, asset_id, values)


async def checkpoints(database: Database) -> Sequence[Asset]:
    """Return every public checkpoint, by name."""
    async with database.begin() as session:
        return await repository.public_checkpoints(session)


async def ensure_alias(database: Database, *, name: str, of: str, asset_id: str | None = None) -> str:
    """Do as `switch_alias`, except where an operator has switched `octoai:{name}` to another checkpoint."""
    async with database.begin() as session:
        found = await repository.public(session, name=name)
    if found is not None and found.data.get("alias_of") != of:
        return found.id
    return await switch_alias(database, name=name, of=of, asset_id=asset_id)


async def switch_alias(
    database: Database, *, name: str, of: str, asset_id: str | None = None, engine: Engine | None = None
) -> str:
    """Make `octoai:{name}` stand for the same bytes as the public asset `octoai:{of}`, and return its id.

    `data.alias_of` names the target in every response. `asset_id` is the id of a new row, for aliases whose id clients know.
    Raises NotFoundError, and InvalidError when the target's engine is not `engine`.
    """
    async with database.begin() as session:
        target = await repository.public(session, name=of)
        if target is None or target.blob_key is None:
            msg = f"there is no public checkpoint octoai:{of}; `tunesmith checkpoints list` shows those that exist"
            raise NotFoundError(msg)
        if engine is not None and target.data.get("engine") != engine:
            msg = f"octoai:{of} is for {target.data.get('engine')}, but octoai:{name} needs {engine}; choose another checkpoint"
            raise InvalidError(msg)
        await blob_rows.pin(session, [target.blob_key])
        values = {field: getattr(target, field) for field in ("description", "size_bytes", "sha256", "blob_key")}
        values["data"] = target.data | {"alias_of": of}
        return await _put(session, name, asset_id or new_id("asset"), values)


async def _put(session: AsyncSession, name: str, asset_id: str, values: dict[str, Any]) -> str:
    """Create the public asset, or switch the asset of that name to these bytes; return its id."""
    account_id = await repository.platform_account(session)
    old = await repository.own(session, account_id, name)
    if old is not None and old.blob_key == values["blob_key"]:
        return old.id
    if old is not None:
        if await transitions.switch(session, old, values) is None:
            msg = f"octoai:{name} was deleted meanwhile; register it again"
            raise NotFoundError(msg)
        return old.id
    await names.reserve(session, account_id, name, "asset", asset_id)
    common = {"account_id": account_id, "asset_type": "checkpoint", "is_public": True, "status": "ready"}
    await transitions.create_ready(session, Asset(id=asset_id, name=name, **common, **values))
    return asset_id
