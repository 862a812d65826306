"""All of the scheduler's SQL that is not the lease's (`shared/tunes/leases.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Account, Asset, Tune, TuneFile
from shared.states import TERMINAL, TuneState

PLATFORM_PREFIX = "octoai:"
_NAME_IN_USE = text("deleted_at IS NULL OR ended_at IS NULL")


@dataclass(frozen=True)
class TuneFilter:
    """What a list of tunes is narrowed to."""

    name: str | None = None
    base_checkpoint: str | None = None
    trigger_words: tuple[str, ...] = ()
    engine: str | None = None


async def find_checkpoint(session: AsyncSession, account_id: UUID, key: str) -> Asset | None:
    """Return a checkpoint by id or name of the account's own, by `octoai:NAME`, or by the id of a public one."""
    platform = select(Account.id).where(Account.is_platform).scalar_subquery()
    if key.startswith(PLATFORM_PREFIX):
        match: ColumnElement[bool] = and_(
            Asset.account_id == platform, Asset.is_public, Asset.name == key.removeprefix(PLATFORM_PREFIX)
        )
    else:
        own = and_(Asset.account_id == account_id, or_(Asset.id == key, Asset.name == key))
        match = or_(own, and_(Asset.id == key, Asset.is_public))
    found = select(Asset).where(match, Asset.asset_type == "checkpoint", Asset.deleted_at.is_(None))
    return (await session.scalars(found.limit(1))).one_or_none()


async def find_assets(session: AsyncSession, account_id: UUID, ids: Sequence[str]) -> dict[str, Asset]:
    """Return the account's own assets of these ids that are not deleted."""
    own = select(Asset).where(Asset.account_id == account_id, Asset.id.in_(ids), Asset.deleted_at.is_(None))
    return {asset.id: asset for asset in await session.scalars(own)}


async def insert_tune(session: AsyncSession, tune: dict[str, object]) -> bool:
    """Insert a tune; False when a tune of that name exists. The partial unique index decides a race."""
    new = (
        insert(Tune)
        .values(tune)
        .on_conflict_do_nothing(index_elements=["account_id", "name"], index_where=_NAME_IN_USE)
        .returning(Tune.id)
    )
    return (await session.execute(new)).scalar_one_or_none() is not None


async def find_tune(session: AsyncSession, account_id: UUID, tune_id: str, *, lock: bool = False) -> Tune | None:
    """Return the account's tune unless it is deleted; with `lock` nobody else changes it before we end."""
    found = select(Tune).where(Tune.id == tune_id, Tune.account_id == account_id, Tune.deleted_at.is_(None))
    return (await session.scalars(found.with_for_update() if lock else found)).one_or_none()


async def lock_tune(session: AsyncSession, tune_id: str) -> Tune | None:
    """Return any account's tune, locked and as it is now."""
    found = select(Tune).where(Tune.id == tune_id).with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(found)).one_or_none()


async def list_tunes(
    session: AsyncSession, account_id: UUID, wanted: TuneFilter, *, offset: int, limit: int
) -> tuple[list[Tune], int]:
    """Return a page of the account's tunes, newest first, and how many there are in all."""
    where = [Tune.account_id == account_id, Tune.deleted_at.is_(None)]
    if wanted.name is not None:
        where.append(Tune.name == wanted.name)
    if wanted.base_checkpoint is not None:
        where.append(or_(Tune.base_asset_id == wanted.base_checkpoint, Tune.base_name == wanted.base_checkpoint))
    if wanted.trigger_words:
        where.append(Tune.trigger_word.in_(wanted.trigger_words))
    if wanted.engine is not None:
        where.append(Tune.engine == wanted.engine)
    total = await session.scalar(select(func.count()).select_from(Tune).where(*where))
    page = select(Tune).where(*where).order_by(Tune.created_at.desc(), Tune.id.desc()).offset(offset).limit(limit)
    return list(await session.scalars(page)), total or 0


async def files_of(session: AsyncSession, tune_ids: Sequence[str]) -> dict[str, list[TuneFile]]:
    """Return the files of several tunes, each in the order of its request."""
    rows = await session.scalars(
        select(TuneFile).where(TuneFile.tune_id.in_(tune_ids)).order_by(TuneFile.tune_id, TuneFile.position)
    )
    files: dict[str, list[TuneFile]] = {tune_id: [] for tune_id in tune_ids}
    for row in rows:
        files[row.tune_id].append(row)
    return files


async def pending_files(session: AsyncSession, tune_id: str) -> list[tuple[TuneFile, Asset | None]]:
    """Return the tune's files without a verdict, each with its asset as it is now."""
    rows = await session.execute(
        select(TuneFile, Asset)
        .outerjoin(Asset, Asset.id == TuneFile.asset_id)
        .where(TuneFile.tune_id == tune_id, TuneFile.verdict == "pending")
        .order_by(TuneFile.position)
        .execution_options(populate_existing=True)
    )
    return [(file, asset) for file, asset in rows]


async def waiting_for_file(session: AsyncSession, asset_id: str) -> list[str]:
    """Return the tunes that wait for this asset's verdict."""
    wait = select(Tune.id).join(TuneFile, TuneFile.tune_id == Tune.id)
    wait = wait.where(TuneFile.asset_id == asset_id, Tune.state == TuneState.WAITING_FILES)
    return list(await session.scalars(wait.distinct()))


async def waiting_tunes(session: AsyncSession) -> list[str]:
    """Return the tunes that wait for any file's verdict."""
    return list(
        await session.scalars(select(Tune.id).where(Tune.state == TuneState.WAITING_FILES).order_by(Tune.updated_at).limit(100))
    )


async def stale_queued(session: AsyncSession, older_than_s: float, *, limit: int) -> list[Tune]:
    """Return the tunes that have stood longest in the queue without a word about them, and restart their clocks.

    Without the restart, each look would say them again, and fill the outbox of a broker that is away.
    """
    stale = (
        select(Tune.id)
        .where(Tune.state == TuneState.QUEUED, Tune.updated_at < func.now() - timedelta(seconds=older_than_s))
        .order_by(Tune.queued_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    touched = update(Tune).where(Tune.id.in_(stale.scalar_subquery())).values(updated_at=func.now()).returning(Tune)
    return list(await session.scalars(touched))


async def published_elsewhere(session: AsyncSession) -> list[tuple[str, Asset]]:
    """Return tunes that still count as publishing although their LoRA's asset has its verdict."""
    rows = await session.execute(
        select(Tune.id, Asset)
        .join(Asset, Asset.tune_id == Tune.id)
        .where(Tune.state == TuneState.PUBLISHING, Asset.status.in_(["ready", "rejected", "error", "deleted"]))
    )
    return [(tune_id, asset) for tune_id, asset in rows]


async def set_pinned(session: AsyncSession, file: TuneFile, verdict: str, blob_key: str | None) -> None:
    """Record a file's verdict and, when it is ready, the blob that the tune keeps."""
    await session.execute(
        update(TuneFile)
        .where(TuneFile.tune_id == file.tune_id, TuneFile.position == file.position)
        .values(verdict=verdict, blob_key=blob_key)
    )


def has_ended(tune: Tune) -> bool:
    """Say whether the tune is in a state that it will not leave."""
    return tune.state in TERMINAL
