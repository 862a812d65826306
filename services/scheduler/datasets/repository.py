"""The SQL of datasets."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Dataset, Tune


async def create(session: AsyncSession, account_id: UUID, dataset_id: str, values: Mapping[str, Any]) -> Dataset:
    """Add a dataset, and return it."""
    row = {"id": dataset_id, "account_id": account_id, "version": 1, **values}
    return (await session.scalars(insert(Dataset).values(row).returning(Dataset))).one()


async def find(session: AsyncSession, account_id: UUID, dataset_id: str) -> Dataset | None:
    """Return the account's dataset."""
    return await session.scalar(select(Dataset).where(Dataset.id == dataset_id, Dataset.account_id == account_id))


async def page(session: AsyncSession, account_id: UUID, *, offset: int, limit: int) -> tuple[Sequence[Dataset], int]:
    """Return a page of the account's datasets, the last changed first, and the number of all."""
    mine = Dataset.account_id == account_id
    total = await session.scalar(select(func.count()).select_from(Dataset).where(mine))
    wanted = select(Dataset).where(mine).order_by(Dataset.updated_at.desc(), Dataset.id.desc())
    return (await session.scalars(wanted.offset(offset).limit(limit))).all(), total or 0


async def change(
    session: AsyncSession, account_id: UUID, dataset_id: str, version: int, values: Mapping[str, Any]
) -> Dataset | None:
    """Change a dataset and return it; None if it does not exist, or has another version by now."""
    return await session.scalar(
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.account_id == account_id, Dataset.version == version)
        .values(version=version + 1, updated_at=func.now(), **values)
        .returning(Dataset)
    )


async def remove(session: AsyncSession, account_id: UUID, dataset_id: str) -> bool:
    """Delete a dataset, and say whether there was one."""
    gone = delete(Dataset).where(Dataset.id == dataset_id, Dataset.account_id == account_id).returning(Dataset.id)
    return await session.scalar(gone) is not None


async def tunes_of(session: AsyncSession, account_id: UUID, dataset_ids: Sequence[str]) -> dict[str, list[Tune]]:
    """Return the tunes that were started from each of these datasets, newest first."""
    wanted = select(Tune).where(Tune.dataset_id.in_(dataset_ids), Tune.account_id == account_id, Tune.deleted_at.is_(None))
    tunes: dict[str, list[Tune]] = {dataset_id: [] for dataset_id in dataset_ids}
    for tune in await session.scalars(wanted.order_by(Tune.created_at.desc())):
        assert tune.dataset_id is not None  # noqa: S101 - it is one of the ids
        tunes[tune.dataset_id].append(tune)
    return tunes
