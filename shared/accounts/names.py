"""Names in the asset library, each reserved in the transaction that creates its holder.

A tune's LoRA gets the tune's name, so a tune reserves it when it is created. The primary key decides a race, never a SELECT.
"""

from typing import Literal
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import AssetName
from shared.errors import NameTakenError

Holder = Literal["asset", "tune"]


async def reserve(session: AsyncSession, account_id: UUID, name: str, kind: Holder, holder_id: str) -> None:
    """Reserve the name for an asset or a tune.

    Waits for a concurrent transaction that reserves the same name. Raises NameTakenError, which names the holder.
    """
    taken = (
        insert(AssetName)
        .values(account_id=account_id, name=name, holder_kind=kind, holder_id=holder_id)
        .on_conflict_do_nothing(index_elements=["account_id", "name"])
        .returning(AssetName.holder_id)
    )
    if (await session.execute(taken)).scalar_one_or_none() is None:
        holder = await session.get(AssetName, (account_id, name))
        by = f"{holder.holder_kind} {holder.holder_id}" if holder else "an asset that is being deleted"
        msg = f"name: {name!r} is in use by {by}; choose another name, or delete that first"
        raise NameTakenError(msg)


async def hand_over(session: AsyncSession, tune_id: str, asset_id: str) -> None:
    """Make the tune's LoRA the holder of the tune's name; does nothing when the tune holds none."""
    await session.execute(
        update(AssetName)
        .where(AssetName.holder_kind == "tune", AssetName.holder_id == tune_id)
        .values(holder_kind="asset", holder_id=asset_id)
    )


async def release(session: AsyncSession, kind: Holder, holder_id: str) -> None:
    """Free the holder's name; does nothing when it holds none."""
    await session.execute(delete(AssetName).where(AssetName.holder_kind == kind, AssetName.holder_id == holder_id))
