"""The SQL of tunes, apart from that of leases (`shared/tunes/leases.py`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Text, and_, case, column, exists, func, or_, select, text, update
from sqlalchemy import values as rows_of
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.retention import Expired, older_than, table_of
from shared.database.tables import (
    Account,
    Asset,
    Blob,
    Checkpoint,
    Dataset,
    Sample,
    Trainer,
    Tune,
    TuneEvent,
    TuneFile,
    WebhookDelivery,
)
from shared.database.tables.tunes import FINAL_EVENTS
from shared.messaging.events import TuneCancelRequested, TuneDeleted, TuneQueued, TuneSucceeded
from shared.states import LEASED, TERMINAL, ClientStatus, TuneState
from shared.tunes import transitions
from shared.tunes.transitions import about, move

PLATFORM_PREFIX = "octoai:"
_UNENDED = Tune.ended_at.is_(None)
"""Follows from the state, but only with it PostgreSQL uses the partial index."""
_TRAINER_SILENT = timedelta(seconds=90)
"""A trainer that has not been seen for this long is not counted as connected."""
_THUMBNAIL_BYTES = 2 * 1024 * 1024
"""Larger training images are no thumbnails: a page of a hundred tunes would fetch gigabytes."""
_THUMBNAILS = 4
_NAME_IN_USE = text("deleted_at IS NULL OR ended_at IS NULL")


@dataclass(frozen=True)
class TuneFilter:
    """What tunes a list contains; None and () leave a field open."""

    name: str | None = None
    base_checkpoint: str | None = None
    trigger_words: tuple[str, ...] = ()
    engine: str | None = None
    words: str | None = None
    """A part of the name, the description or the trigger word."""
    statuses: tuple[ClientStatus, ...] = ()
    sort: str = "newest"


async def find_checkpoint(session: AsyncSession, account_id: UUID, key: str) -> Asset | None:
    """Return the account's own checkpoint with this id or name, or a public one by its id or by `octoai:NAME`."""
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
    """Return those of the account's own assets that have these ids and are not deleted."""
    own = select(Asset).where(Asset.account_id == account_id, Asset.id.in_(ids), Asset.deleted_at.is_(None))
    return {asset.id: asset for asset in await session.scalars(own)}


async def find_lora(session: AsyncSession, asset_id: str) -> Asset | None:
    """Return the LoRA with this asset id, of any account and in any state."""
    return await session.get(Asset, asset_id)


async def insert_tune(session: AsyncSession, tune: Mapping[str, object]) -> bool:
    """Insert a tune; return False when a tune of that name exists. The partial unique index decides a race."""
    new = (
        insert(Tune)
        .values(tune)
        .on_conflict_do_nothing(index_elements=["account_id", "name"], index_where=_NAME_IN_USE)
        .returning(Tune.id)
    )
    return (await session.execute(new)).scalar_one_or_none() is not None


async def insert_files(session: AsyncSession, tune_id: str, files: Iterable[tuple[str, str, bool]]) -> None:
    """Insert the files of a new tune, in their order and without a verdict.

    Each has its asset's id, its caption, and whether it is a regularization image.
    """
    rows = [
        {
            "tune_id": tune_id,
            "position": position,
            "asset_id": asset_id,
            "caption": caption,
            "regularization": regularization,
            "verdict": "pending",
        }
        for position, (asset_id, caption, regularization) in enumerate(files)
    ]
    # One statement with all rows: the account is locked meanwhile, and each statement is a round trip.
    await session.execute(insert(TuneFile).values(rows))


async def find_tune(session: AsyncSession, account_id: UUID, tune_id: str, *, lock: bool = False) -> Tune | None:
    """Return the account's tune unless it is deleted; `lock` keeps other transactions from changing it until this one ends."""
    found = select(Tune).where(Tune.id == tune_id, Tune.account_id == account_id, Tune.deleted_at.is_(None))
    return (await session.scalars(found.with_for_update() if lock else found)).one_or_none()


async def lock_tune(session: AsyncSession, tune_id: str) -> Tune:
    """Return the tune of any account, which must exist, locked and as the database has it now."""
    found = select(Tune).where(Tune.id == tune_id).with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(found)).one()


async def age_s(session: AsyncSession, tune_id: str) -> float:
    """Return the seconds since the tune was created, by the clock of the database."""
    age = select(func.now() - Tune.created_at).where(Tune.id == tune_id)
    return (await session.scalars(age)).one().total_seconds()


async def list_tunes(
    session: AsyncSession, account_id: UUID, wanted: TuneFilter, *, offset: int, limit: int
) -> tuple[list[Tune], int]:
    """Return a page of the account's tunes, newest first, and the number of all that match."""
    where = [Tune.account_id == account_id, Tune.deleted_at.is_(None)]
    if wanted.name is not None:
        where.append(Tune.name == wanted.name)
    if wanted.base_checkpoint is not None:
        # A public checkpoint's name is stored with its prefix, and shown without it.
        named = Tune.base_name.in_((wanted.base_checkpoint, PLATFORM_PREFIX + wanted.base_checkpoint))
        where.append(or_(Tune.base_asset_id == wanted.base_checkpoint, named))
    if wanted.trigger_words:
        where.append(Tune.trigger_word.in_(wanted.trigger_words))
    if wanted.engine is not None:
        where.append(Tune.engine == wanted.engine)
    if wanted.words:
        texts = (Tune.name, Tune.description, Tune.trigger_word)
        where.append(or_(*(column.icontains(wanted.words, autoescape=True) for column in texts)))
    if wanted.statuses:
        where.append(or_(*(_has_status(status) for status in wanted.statuses)))
    order = {
        "newest": (Tune.created_at.desc(), Tune.id.desc()),
        "oldest": (Tune.created_at, Tune.id),
        "name": (func.lower(Tune.name), Tune.id),
    }[wanted.sort]
    total = await session.scalar(select(func.count()).select_from(Tune).where(*where))
    page = select(Tune).where(*where).order_by(*order).offset(offset).limit(limit)
    return list(await session.scalars(page)), total or 0


def _has_status(status: ClientStatus) -> ColumnElement[bool]:
    """Return the condition that `client_status` of a tune is this one."""
    if status in TERMINAL:
        return Tune.state == status.value
    claimed = or_(Tune.state.in_([*LEASED, TuneState.PUBLISHING]), Tune.lease_epoch > 0)
    return and_(Tune.state.not_in(TERMINAL), claimed if status is ClientStatus.RUNNING else ~claimed)


async def has_dataset(session: AsyncSession, account_id: UUID, dataset_id: str) -> bool:
    """Say whether the account has this dataset."""
    found = select(Dataset.id).where(Dataset.id == dataset_id, Dataset.account_id == account_id)
    return await session.scalar(found) is not None


async def queued_before(session: AsyncSession, tune_ids: Sequence[str]) -> dict[str, int]:
    """Return how many tunes of all accounts were queued before each of these; a tune that is not queued is left out."""
    place = func.row_number().over(order_by=(Tune.priority.desc(), Tune.queued_at, Tune.id)) - 1
    queued = select(Tune.id, place.label("ahead")).where(Tune.state == TuneState.QUEUED).subquery()
    rows = await session.execute(select(queued).where(queued.c.id.in_(tune_ids)))
    return {row.id: row.ahead for row in rows}


async def count_unended(session: AsyncSession) -> tuple[dict[str, int], float]:
    """Return how many tunes have not ended by state, and how long the oldest of the queue has waited, in seconds."""
    waited = func.extract("epoch", func.now() - func.min(Tune.queued_at))
    found = await session.execute(select(Tune.state, func.count(), waited).where(Tune.ended_at.is_(None)).group_by(Tune.state))
    rows = {state: (count, waited_s) for state, count, waited_s in found}
    return {state: count for state, (count, _) in rows.items()}, float(rows.get(TuneState.QUEUED, (0, 0.0))[1] or 0.0)


async def has_trainer(session: AsyncSession) -> bool:
    """Say whether a trainer was seen lately."""
    seen = select(Trainer.id).where(Trainer.seen_at > func.now() - _TRAINER_SILENT).limit(1)
    return await session.scalar(seen) is not None


async def largest_gpu_bytes(session: AsyncSession) -> int | None:
    """Return the memory of the largest GPU of a trainer that was seen lately; None if there is none, or one trains on a CPU."""
    seen = select(Trainer.memory_bytes).where(Trainer.seen_at > func.now() - _TRAINER_SILENT, Trainer.device != "")
    sizes = list(await session.scalars(seen))
    return max((size for size in sizes if size is not None), default=None) if None not in sizes else None


async def thumbnails(session: AsyncSession, tune_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the blob keys of up to four images of each tune: its newest samples, or else its first smaller training images."""
    last = select(Sample.tune_id, func.max(Sample.step).label("step")).where(Sample.tune_id.in_(tune_ids))
    last = last.group_by(Sample.tune_id).subquery()
    newest = (
        select(Sample.tune_id, Sample.blob_key)
        .join(last, and_(last.c.tune_id == Sample.tune_id, last.c.step == Sample.step))
        .order_by(Sample.tune_id, Sample.number)
    )
    keys: dict[str, list[str]] = {tune_id: [] for tune_id in tune_ids}
    for tune_id, key in await session.execute(newest):
        keys[tune_id].append(key)
    without = [tune_id for tune_id in tune_ids if not keys[tune_id]]
    trained_on = (
        select(TuneFile.tune_id, Blob.key)
        .join(Blob, Blob.key == TuneFile.blob_key)
        .where(TuneFile.tune_id.in_(without), Blob.size_bytes <= _THUMBNAIL_BYTES)
        .order_by(TuneFile.tune_id, TuneFile.position)
    )
    for tune_id, key in await session.execute(trained_on):
        keys[tune_id].append(key)
    return {tune_id: found[:_THUMBNAILS] for tune_id, found in keys.items()}


async def files_of(session: AsyncSession, tune_ids: Sequence[str]) -> dict[str, list[TuneFile]]:
    """Return the files of several tunes as the database has them now, each in the order of its request."""
    rows = await session.scalars(
        select(TuneFile)
        .where(TuneFile.tune_id.in_(tune_ids))
        .order_by(TuneFile.tune_id, TuneFile.position)
        .execution_options(populate_existing=True)
    )
    files: dict[str, list[TuneFile]] = {tune_id: [] for tune_id in tune_ids}
    for row in rows:
        files[row.tune_id].append(row)
    return files


async def pending_files(session: AsyncSession, tune_id: str) -> list[tuple[TuneFile, Asset | None]]:
    """Return the tune's files without a verdict, each with its asset as the database has it now."""
    rows = await session.execute(
        select(TuneFile, Asset)
        .outerjoin(Asset, Asset.id == TuneFile.asset_id)
        .where(TuneFile.tune_id == tune_id, TuneFile.verdict == "pending")
        .order_by(TuneFile.position)
        .execution_options(populate_existing=True)
    )
    return [(file, asset) for file, asset in rows]


async def waiting_for_file(session: AsyncSession, asset_id: str) -> list[str]:
    """Return the ids of the tunes that wait for this asset's verdict."""
    wait = select(Tune.id).join(TuneFile, TuneFile.tune_id == Tune.id)
    wait = wait.where(TuneFile.asset_id == asset_id, Tune.state == TuneState.WAITING_FILES)
    return list(await session.scalars(wait.distinct()))


async def with_verdicts(session: AsyncSession, timeout_s: float, *, after: str, limit: int) -> list[str]:
    """Return the ids of waiting tunes that have a file whose verdict is known or never comes, or wait longer than the timeout.

    In the order of the ids, and after the given one.
    """
    pending = select(TuneFile).outerjoin(Asset, Asset.id == TuneFile.asset_id)
    pending = pending.where(TuneFile.tune_id == Tune.id, TuneFile.verdict == "pending")
    open_ones = Asset.status.in_(["ready_to_upload", "uploaded"])
    is_due = or_(
        Tune.created_at < func.now() - timedelta(seconds=timeout_s),
        pending.where(or_(Asset.id.is_(None), ~open_ones)).exists(),
        ~pending.exists(),
    )
    waiting = select(Tune.id).where(Tune.state == TuneState.WAITING_FILES, _UNENDED, is_due, Tune.id > after)
    return list(await session.scalars(waiting.order_by(Tune.id).limit(limit)))


async def queued_with_cancel(session: AsyncSession, after: str, limit: int) -> list[str]:
    """Return the ids of queued tunes whose cancel was requested, in the order of the ids and after the given one."""
    requested = select(Tune.id).where(
        Tune.state == TuneState.QUEUED, _UNENDED, Tune.cancel_requested_at.is_not(None), Tune.id > after
    )
    return list(await session.scalars(requested.order_by(Tune.id).limit(limit)))


async def stale_queued(session: AsyncSession, older_than_s: float, *, after: str, limit: int) -> list[str]:
    """Return the ids of queued tunes that have not changed for this long, in the order of the ids and after the given one."""
    stale = select(Tune.id).where(_is_stale(older_than_s), Tune.id > after)
    return list(await session.scalars(stale.order_by(Tune.id).limit(limit)))


async def touch_stale_queued(session: AsyncSession, tune_id: str, older_than_s: float) -> Tune | None:
    """Set the `updated_at` of a queued tune that has not changed for this long, and return it; None if it has changed.

    Without the new `updated_at`, every call would return the same tunes, and their events would fill the outbox while the
    broker is unavailable.
    """
    stale = select(Tune.id).where(Tune.id == tune_id, _is_stale(older_than_s)).with_for_update(skip_locked=True)
    touched = update(Tune).where(Tune.id.in_(stale.scalar_subquery())).values(updated_at=func.now()).returning(Tune)
    return (await session.scalars(touched)).one_or_none()


def _is_stale(older_than_s: float) -> ColumnElement[bool]:
    return and_(Tune.state == TuneState.QUEUED, _UNENDED, Tune.updated_at < func.now() - timedelta(seconds=older_than_s))


async def publishing_with_verdict(session: AsyncSession, after: str, limit: int) -> list[str]:
    """Return the ids of publishing tunes whose LoRA has its verdict, in the order of the ids and after the given one."""
    verdict = Asset.status.in_(["ready", "rejected", "error", "deleted"])
    ended = select(Tune.id).join(Asset, Asset.tune_id == Tune.id).where(Tune.state == TuneState.PUBLISHING, _UNENDED, verdict)
    return list(await session.scalars(ended.where(Tune.id > after).order_by(Tune.id).limit(limit)))


async def lora_of_tune(session: AsyncSession, tune_id: str) -> Asset | None:
    """Return the LoRA that was registered for the tune, in any state."""
    return (await session.scalars(select(Asset).where(Asset.tune_id == tune_id))).one_or_none()


async def set_verdicts(session: AsyncSession, tune_id: str, blob_keys: Mapping[int, str | None]) -> None:
    """Record the verdicts on a tune's files by position: the blob that the tune keeps, or None for a file that was rejected."""
    if not blob_keys:
        return
    given = rows_of(column("position", Integer), column("blob_key", Text), name="given").data(list(blob_keys.items()))
    verdict = case((given.c.blob_key.is_(None), "rejected"), else_="ready")
    # One statement for all files: a tune may have 200 of them.
    await session.execute(
        update(TuneFile)
        .where(TuneFile.tune_id == tune_id, TuneFile.position == given.c.position)
        .values(verdict=verdict, blob_key=given.c.blob_key)
        .execution_options(synchronize_session=False)
    )


async def queue(session: AsyncSession, tune_id: str) -> None:
    """Move a tune that waits for its files into the queue."""
    values = {"state": TuneState.QUEUED, "queued_at": func.now()}
    where = [Tune.state == TuneState.WAITING_FILES]
    await move(session, tune_id, where, values, lambda tune: TuneQueued(**about(tune)))


async def succeed(session: AsyncSession, tune_id: str, lora_asset_id: str) -> Tune | None:
    """End a publishing tune with its LoRA; return None when the tune is not publishing any more."""
    values = {
        "state": TuneState.SUCCEEDED,
        "lora_asset_id": lora_asset_id,
        "succeeded_at": func.now(),
        "ended_at": func.now(),
    }
    where = [Tune.state == TuneState.PUBLISHING]
    return await move(session, tune_id, where, values, lambda tune: TuneSucceeded(**about(tune), lora_asset_id=lora_asset_id))


async def fail_publishing(session: AsyncSession, tune_id: str, *, code: str, message: str) -> None:
    """End a publishing tune without a LoRA; do nothing when the tune is not publishing any more."""
    await transitions.fail(session, tune_id, [Tune.state == TuneState.PUBLISHING], code=code, message=message)


async def request_cancel(session: AsyncSession, tune_id: str) -> None:
    """Record that the tune is to be cancelled, for the trainer that holds its lease."""
    await move(session, tune_id, [], {"cancel_requested_at": func.now()}, lambda tune: TuneCancelRequested(**about(tune)))


async def mark_deleted(session: AsyncSession, tune_id: str) -> Tune:
    """Record that the tune, which must exist, is deleted."""
    deleted = await move(session, tune_id, [], {"deleted_at": func.now()}, lambda tune: TuneDeleted(**about(tune)))
    assert deleted is not None  # noqa: S101 - with no condition, only a tune that does not exist is not moved
    return deleted


def expired_events(kept_s: float) -> Expired:
    """Return the events of ended tunes that are older than this, but for those that say how a tune ended."""
    ended = exists().where(Tune.id == TuneEvent.tune_id, Tune.ended_at.is_not(None))
    return Expired(
        table_of(TuneEvent), and_(TuneEvent.type.not_in(FINAL_EVENTS), older_than(TuneEvent.occurred_at, kept_s), ended)
    )


def expired_tunes(kept_s: float) -> Expired:
    """Return the tunes that have ended and were deleted longer ago than this, with all that belongs to them."""
    gone = and_(Tune.ended_at.is_not(None), older_than(Tune.deleted_at, kept_s))
    parts = [table_of(kind).c.tune_id for kind in (TuneFile, TuneEvent, Checkpoint, Sample, WebhookDelivery)]
    return Expired(table_of(Tune), gone, tuple(parts))
