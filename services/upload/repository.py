"""The SQL of the asset library, except the transitions of an asset, which `transitions` writes with their events."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    String,
    UnaryExpression,
    and_,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.accounts.accounts import PLATFORM_ACCOUNT
from shared.database.retention import Expired, older_than, table_of
from shared.database.tables import Account, Asset, Blob, LoraRegistration, PartUpload, Tune
from shared.engines import FAMILIES, Engine
from shared.states import TuneState

ALIVE = Asset.deleted_at.is_(None)
AWAITS_VERDICT = (Asset.status == "uploaded") & Asset.uploaded_at.is_not(None) & Asset.staging_key.is_not(None)
"""An import is `uploaded` from its start; `uploaded_at` is set once its bytes are in staging."""
IMPORTING = (Asset.status == "uploaded") & Asset.uploaded_at.is_(None)
_LATER_ENGINES = [engine for engine in Engine if engine not in FAMILIES]
"""Engines that the first versions of octoai-sdk do not know: they cannot read a list that has one."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_THUMBNAIL_ATTEMPTS = 3
_LACKS_THUMBNAIL = and_(Asset.asset_type == "file", Asset.status == "ready", Asset.thumbnail_key.is_(None))
_BYTES_PER_S = 10_000_000
"""The lowest speed of intake that is expected: the larger a file, the later its verdict."""


@dataclass(frozen=True)
class Filters:
    """What narrows a list of assets. A field that is empty or None narrows nothing."""

    name: str | None = None
    owner: str | None = None
    is_public: bool = False
    asset_types: list[str] = field(default_factory=list)
    engines: list[str] = field(default_factory=list)
    engine_type: str | None = None
    data_type: str | None = None
    file_formats: list[str] = field(default_factory=list)
    asset_ids: list[str] = field(default_factory=list)
    words: str | None = None
    """A part of the name, the description or a trigger word."""
    statuses: list[str] = field(default_factory=list)
    sort: str = "newest"


async def own(session: AsyncSession, account_id: UUID, key: str) -> Asset | None:
    """Find an account's asset by its id or its name; an id takes precedence."""
    found = await session.scalars(
        select(Asset)
        .where(Asset.account_id == account_id, ALIVE, or_(Asset.id == key, Asset.name == key))
        .order_by((Asset.id == key).desc())
        .limit(1)
    )
    return found.first()


async def public(session: AsyncSession, *, asset_id: str | None = None, name: str | None = None) -> Asset | None:
    """Find a public asset by its id, or one of the platform account by its name."""
    wanted = select(Asset).join(Account, Account.id == Asset.account_id).where(Asset.is_public, ALIVE)
    which = Asset.id == asset_id if asset_id is not None else and_(Asset.name == name, Account.is_platform)
    return await session.scalar(wanted.where(which))


async def public_checkpoints(session: AsyncSession) -> Sequence[Asset]:
    """Return every public checkpoint that is ready, ordered by name."""
    wanted = select(Asset).where(Asset.is_public, Asset.asset_type == "checkpoint", Asset.status == "ready", ALIVE)
    return (await session.scalars(wanted.order_by(Asset.name))).all()


async def page(
    session: AsyncSession, account_id: UUID, filters: Filters, *, limit: int, offset: int
) -> tuple[Sequence[Asset], int]:
    """Return a page of assets, newest first, and the number of all that match."""
    matching = _matching(account_id, filters)
    total = await session.scalar(select(func.count()).select_from(matching.subquery()))
    rows = await session.scalars(matching.order_by(*_order(filters.sort)).limit(limit).offset(offset))
    return rows.all(), total or 0


def _order(sort: str) -> tuple[UnaryExpression[Any] | ColumnElement[Any], ...]:
    """Return by what a list is sorted; the id makes the order of equal ones the same on every page."""
    orders = {
        "newest": (Asset.created_at.desc(), Asset.id.desc()),
        "oldest": (Asset.created_at.asc(), Asset.id.asc()),
        "name": (func.lower(Asset.name).asc(), Asset.id.asc()),
        "largest": (Asset.size_bytes.desc(), Asset.id.desc()),
    }
    return orders[sort]


def _matching(account_id: UUID, filters: Filters) -> Select[Asset]:
    wanted = select(Asset).where(ALIVE, _visible(account_id, filters))
    if filters.name is not None:
        wanted = wanted.where(Asset.name == filters.name)
    if filters.asset_types:
        wanted = wanted.where(Asset.asset_type.in_(filters.asset_types))
    if filters.engines:
        wanted = wanted.where(_data("engine").in_(filters.engines))
    if filters.engine_type is not None:
        wanted = wanted.where(_data("engine").startswith(f"{filters.engine_type}/", autoescape=True))
    if filters.data_type is not None:
        wanted = wanted.where(_data("data_type") == filters.data_type)
    if filters.file_formats:
        wanted = wanted.where(_data("file_format").in_(filters.file_formats))
    if filters.asset_ids:
        wanted = wanted.where(Asset.id.in_(filters.asset_ids))
    if filters.words:
        texts = (Asset.name, Asset.description, _data("trigger_words"))
        wanted = wanted.where(or_(*(text.icontains(filters.words, autoescape=True) for text in texts)))
    if filters.statuses:
        wanted = wanted.where(Asset.status.in_(filters.statuses))
    return _without_later_engines(wanted, account_id, filters)


def _without_later_engines(wanted: Select[Asset], account_id: UUID, filters: Filters) -> Select[Asset]:
    """Leave out public assets that older clients cannot read, unless the list is narrowed to what may be one."""
    if not (filters.engines or filters.engine_type or filters.name or filters.asset_ids):
        known = or_(_data("engine").is_(None), _data("engine").not_in(_LATER_ENGINES))
        wanted = wanted.where(or_(Asset.account_id == account_id, known))
    return wanted


def _visible(account_id: UUID, filters: Filters) -> ColumnElement[bool]:
    """Return the condition for what an account sees: its own assets, and the public assets of others."""
    if filters.owner is not None and filters.owner != str(account_id):
        owner = exists().where(
            Account.id == Asset.account_id,
            or_(Account.name == filters.owner, cast(Account.id, String) == filters.owner),
        )
        return and_(Asset.is_public, owner)
    if filters.is_public:
        public_ones = Asset.is_public.is_(True)
        return and_(public_ones, Asset.account_id == account_id) if filters.owner else public_ones
    return Asset.account_id == account_id


def _data(key: str) -> ColumnElement[str]:
    return Asset.data[key].astext


async def get(session: AsyncSession, asset_id: str) -> Asset | None:
    """Find an asset of any account by its id, deleted or not."""
    return await session.get(Asset, asset_id)


async def other_holds_blob(session: AsyncSession, asset_id: str, key: str) -> bool:
    """Say whether another ready asset has the same blob, as the alias `default-sd15` has a checkpoint's.

    Locks the blob's row first: of two assets that are deleted at the same time, the second sees that the first is gone.
    """
    await session.execute(select(Blob.key).where(Blob.key == key).with_for_update())
    other = exists().where(Asset.blob_key == key, Asset.id != asset_id, Asset.status == "ready")
    return bool(await session.scalar(select(other)))


async def without_verdict(session: AsyncSession, bound_s: float, limit: int, *, after: str = "") -> Sequence[str]:
    """Return the ids of uploads that have waited for their verdict longer than the bound, in order and after the given id."""
    late = select(Asset.id).where(_is_late(bound_s), Asset.id > after).order_by(Asset.id).limit(limit)
    return (await session.scalars(late)).all()


async def touch_without_verdict(session: AsyncSession, asset_id: str, bound_s: float) -> Asset | None:
    """Restart the time of an upload that has waited for its verdict longer than the bound; None if that has changed."""
    late = select(Asset.id).where(Asset.id == asset_id, _is_late(bound_s)).with_for_update(skip_locked=True)
    return await session.scalar(update(Asset).where(Asset.id.in_(late)).values(updated_at=func.now()).returning(Asset))


def _is_late(bound_s: float) -> ColumnElement[bool]:
    # Each attempt makes the bound longer, so that a full disk has time to be cleared before the attempts are used up.
    seconds = cast((bound_s + Asset.size_bytes / _BYTES_PER_S) * func.greatest(Asset.intake_attempts, 1), Double)
    bound = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return and_(Asset.status == "uploaded", Asset.uploaded_at.is_not(None), Asset.updated_at < func.now() - bound)


async def claim_intake(session: AsyncSession, asset_id: str) -> Asset | None:
    """Count an attempt to check an upload, and return the asset; None when it waits for no verdict."""
    claimed = (
        update(Asset)
        .where(Asset.id == asset_id, AWAITS_VERDICT)
        .values(intake_attempts=Asset.intake_attempts + 1, updated_at=func.now())
        .returning(Asset)
    )
    return await session.scalar(claimed)


async def give_back_intake(session: AsyncSession, asset_id: str) -> None:
    """Take back the count of an attempt that failed because the store was unavailable."""
    given_back = func.greatest(Asset.intake_attempts - 1, 0)
    await session.execute(update(Asset).where(Asset.id == asset_id, AWAITS_VERDICT).values(intake_attempts=given_back))


async def renew_intakes(session: AsyncSession, asset_ids: Collection[str]) -> None:
    """Restart the time that these uploads may wait for their verdict."""
    await session.execute(update(Asset).where(Asset.id.in_(list(asset_ids)), AWAITS_VERDICT).values(updated_at=func.now()))


async def claim_thumbnail(session: AsyncSession) -> Asset | None:
    """Count an attempt to make a missing thumbnail, and return its image, the newest first; None when none is missing."""
    missing = select(Asset.id).where(_LACKS_THUMBNAIL, Asset.thumbnail_attempts < _THUMBNAIL_ATTEMPTS)
    # A newer image, or one that was not tried yet, comes before one that failed.
    first = missing.order_by(Asset.thumbnail_attempts, Asset.created_at.desc()).limit(1).with_for_update(skip_locked=True)
    counted = update(Asset).where(Asset.id.in_(first)).values(thumbnail_attempts=Asset.thumbnail_attempts + 1)
    return await session.scalar(counted.returning(Asset))


async def give_back_thumbnail(session: AsyncSession, asset_id: str) -> None:
    """Take back the count of an attempt that failed because the store was unavailable."""
    given_back = func.greatest(Asset.thumbnail_attempts - 1, 0)
    await session.execute(update(Asset).where(Asset.id == asset_id).values(thumbnail_attempts=given_back))


async def set_thumbnail(session: AsyncSession, asset_id: str, key: str, size_bytes: int) -> bool:
    """Give an image its thumbnail; False when it has one or was deleted meanwhile."""
    wanted = update(Asset).where(Asset.id == asset_id, _LACKS_THUMBNAIL)
    given = wanted.values(thumbnail_key=key, thumbnail_bytes=size_bytes).returning(Asset.id)
    return await session.scalar(given) is not None


async def claim_registration(session: AsyncSession, tune_id: str, bound_s: float) -> int | None:
    """Count an attempt to register a tune's LoRA, and return its number.

    None while an earlier attempt may still run, or must not be followed so soon: each makes the pause after it longer.
    """
    pause = func.make_interval(0, 0, 0, 0, 0, 0, cast(bound_s * LoraRegistration.attempts, Double))
    new = insert(LoraRegistration).values(tune_id=tune_id, attempts=1)
    return await session.scalar(
        new.on_conflict_do_update(
            index_elements=["tune_id"],
            set_={"attempts": LoraRegistration.attempts + 1, "tried_at": func.now()},
            where=LoraRegistration.tried_at < func.now() - pause,
        ).returning(LoraRegistration.attempts)
    )


async def give_back_registration(session: AsyncSession, tune_id: str) -> None:
    """Take back the count of an attempt that failed because the store was unavailable; the next one may follow at once."""
    given_back = {"attempts": func.greatest(LoraRegistration.attempts - 1, 0), "tried_at": _LONG_AGO}
    await session.execute(update(LoraRegistration).where(LoraRegistration.tune_id == tune_id).values(given_back))


async def end_registration(session: AsyncSession, tune_id: str) -> None:
    """Forget the attempts of a registration that has succeeded, or has failed for good."""
    await session.execute(delete(LoraRegistration).where(LoraRegistration.tune_id == tune_id))


async def expect_parts(session: AsyncSession, staging_key: str, lifetime_s: float) -> None:
    """Record that the key may be uploaded in parts for so many seconds."""
    until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, cast(lifetime_s, Double))
    new = insert(PartUpload).values(staging_key=staging_key, until=until)
    await session.execute(new.on_conflict_do_update(index_elements=["staging_key"], set_={"until": new.excluded.until}))


async def part_uploads(session: AsyncSession, after: str, limit: int) -> list[str]:
    """Return the keys that may have uploads in parts, in order and after the given one."""
    wanted = select(PartUpload.staging_key).where(PartUpload.staging_key > after).order_by(PartUpload.staging_key)
    return list(await session.scalars(wanted.limit(limit)))


async def forget_part_uploads(session: AsyncSession, staging_keys: Collection[str]) -> None:
    """Delete those of the keys for which no credentials are valid any more."""
    # The minute is for a request that the store began before the end.
    over = PartUpload.until < func.now() - timedelta(minutes=1)
    await session.execute(delete(PartUpload).where(PartUpload.staging_key.in_(list(staging_keys)), over))


async def renew_imports(session: AsyncSession, asset_ids: Collection[str]) -> None:
    """Renew the heartbeat of imports that this process works on."""
    await session.execute(update(Asset).where(Asset.id.in_(asset_ids), IMPORTING).values(updated_at=func.now()))


async def take_over_imports(session: AsyncSession, bound_s: float, limit: int) -> Sequence[tuple[str, UUID]]:
    """Return the id and account of imports whose heartbeat is older than the bound, and renew it for the caller."""
    silent = (
        select(Asset.id)
        .where(IMPORTING, Asset.updated_at < func.now() - timedelta(seconds=bound_s))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    renewed = update(Asset).where(Asset.id.in_(silent)).values(updated_at=func.now())
    found = await session.execute(renewed.returning(Asset.id, Asset.account_id))
    return [(asset_id, account_id) for asset_id, account_id in found]


async def never_completed(session: AsyncSession, after_s: float, *, after: str, limit: int) -> Sequence[str]:
    """Return the ids of uploads that began longer ago than this and were never completed, in order and after the given id."""
    late = Asset.created_at < func.now() - timedelta(seconds=after_s)
    found = select(Asset.id).where(Asset.status == "ready_to_upload", late, Asset.id > after)
    return (await session.scalars(found.order_by(Asset.id).limit(limit))).all()


async def tune(session: AsyncSession, tune_id: str) -> Tune | None:
    """Find a tune, which belongs to another context."""
    return await session.get(Tune, tune_id)


async def lora_of_tune(session: AsyncSession, tune_id: str) -> Asset | None:
    """Find the LoRA that was registered for a tune, deleted or not."""
    return await session.scalar(select(Asset).where(Asset.tune_id == tune_id))


async def unregistered_tunes(session: AsyncSession, bound_s: float, *, after: str, limit: int) -> Sequence[str]:
    """Return the ids of trained tunes whose LoRA has waited longer than the bound, in order and after the given id."""
    late = Tune.trained_at < func.now() - timedelta(seconds=bound_s)
    found = select(Tune.id).where(Tune.state == TuneState.PUBLISHING, Tune.ended_at.is_(None), late, Tune.id > after)
    return (await session.scalars(found.order_by(Tune.id).limit(limit))).all()


async def platform_account(session: AsyncSession) -> UUID:
    """Return the id of the account that holds the public assets."""
    found = await session.scalars(select(Account.id).where(Account.is_platform, Account.name == PLATFORM_ACCOUNT))
    return found.one()


def expired_assets(kept_s: float) -> Expired:
    """Return the assets that were deleted longer ago than this. The LoRA of a tune stays until its tune has ended."""
    unended = exists().where(Tune.id == Asset.tune_id, Tune.ended_at.is_(None))
    return Expired(table_of(Asset), and_(older_than(Asset.deleted_at, kept_s), ~unended))


async def made_download(session: AsyncSession, start: str, fresh_s: float) -> tuple[str, int] | None:
    """Return the key and the size of the newest object below `start` that was orphaned in the last `fresh_s` seconds."""
    since = func.now() - timedelta(seconds=fresh_s)
    made = select(Blob.key, Blob.size_bytes).where(Blob.key.startswith(start, autoescape=True), Blob.state == "orphaned")
    made = made.where(Blob.sha256.is_not(None), Blob.orphaned_at > since).order_by(Blob.key.desc()).limit(1)
    found = (await session.execute(made)).one_or_none()
    return (found[0], found[1]) if found else None


async def content_type(session: AsyncSession, key: str) -> str:
    """Return the type of a stored object, such as `image/png`."""
    return await session.scalar(select(Blob.content_type).where(Blob.key == key)) or "application/octet-stream"
