"""What an account may have at a time: tunes that have not ended, images in flight, stored bytes.

Call each function first in the transaction that adds something, before it takes other locks. It locks the account's row until
that transaction ends, so that concurrent transactions count what the others added: limits are exact.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from shared.database.tables import Account, AccountUsage, Asset, Generation, Tune
from shared.errors import LimitError, UnavailableError
from shared.failures import is_locked
from shared.settings import ApiSettings

_LOCK_MS = 2000
_TUNE_RETRY_S = 60
_IMAGES_RETRY_S = 5
_BYTES_RETRY_S = 3600


async def admit_tune(session: AsyncSession, account_id: UUID, settings: ApiSettings) -> None:
    """Raise LimitError unless the account may have one more tune that has not ended."""
    limit = await _limit(session, account_id, Account.max_unfinished_tunes, settings.max_unfinished_tunes)
    unfinished = select(func.count()).where(Tune.account_id == account_id, Tune.ended_at.is_(None))
    count = await _count(session, unfinished)
    if count + 1 > limit:
        msg = f"max_unfinished_tunes: {count} tunes have not ended; {limit} are allowed; wait for one to end, or cancel one"
        raise _error(msg, _TUNE_RETRY_S)


async def admit_images(session: AsyncSession, account_id: UUID, settings: ApiSettings, number: int) -> None:
    """Raise LimitError unless the account may request this many images besides those in flight."""
    await _limit(session, account_id, Account.max_images_in_flight, settings.max_images_in_flight)
    await check_images(session, account_id, settings, number)


async def check_images(session: AsyncSession, account_id: UUID, settings: ApiSettings, number: int) -> None:
    """Raise what `admit_images` raises, without a lock: concurrent requests do not count each other."""
    own = await session.scalar(select(Account.max_images_in_flight).where(Account.id == account_id))
    limit = settings.max_images_in_flight if own is None else own
    images = func.coalesce(func.sum(func.jsonb_array_length(Generation.inputs["seeds"])), 0)
    in_flight = select(images).where(Generation.account_id == account_id, Generation.finished_at.is_(None))
    count = await _count(session, in_flight)
    if count + number > limit:
        msg = (
            f"max_images_in_flight: {count} images are in flight and {number} more are requested; {limit} are allowed; "
            "wait for some to finish"
        )
        raise _error(msg, _IMAGES_RETRY_S)


async def admit_asset(
    session: AsyncSession, account_id: UUID, settings: ApiSettings, *, declared_bytes: int | None, most_bytes: int
) -> int:
    """Return the bytes that a new asset reserves until its own are stored; what it uploads must not be larger.

    That is the declared size, or as much as such an asset may have and the account has left. Raises LimitError when nothing is
    left, or the account has too many assets.
    """
    most_assets = await _limit(session, account_id, Account.max_assets, settings.max_assets)
    usage = select(AccountUsage.assets).where(AccountUsage.account_id == account_id)
    assets = await _count(session, select(_value(usage)))
    if assets + 1 > most_assets:
        msg = f"max_assets: the account has {assets} assets; {most_assets} are allowed; delete assets"
        raise _error(msg, _BYTES_RETRY_S)
    left = await admit_bytes(session, account_id, settings, declared_bytes or 0)
    return min(most_bytes, left) if declared_bytes is None else declared_bytes


async def admit_bytes(session: AsyncSession, account_id: UUID, settings: ApiSettings, size_bytes: int, asset_id: str = "") -> int:
    """Raise LimitError unless the account may store this many more bytes, as this asset; return how many more it may store.

    Uploads that are not completed count with the bytes that they reserve.
    """
    limit = await _limit(session, account_id, Account.max_stored_bytes, settings.max_stored_bytes)
    own = Asset.size_bytes + Asset.copy_bytes + Asset.thumbnail_bytes + Asset.reserved_bytes
    own_bytes = select(own).where(Asset.id == asset_id, Asset.account_id == account_id, Asset.deleted_at.is_(None))
    all_bytes = select(AccountUsage.bytes).where(AccountUsage.account_id == account_id)
    count = await _count(session, select(_value(all_bytes) - _value(own_bytes)))
    if count + size_bytes > limit or count >= limit:
        msg = (
            f"max_stored_bytes: {count} bytes are stored and {size_bytes} more are needed; {limit} are allowed; "
            "delete assets, or complete uploads, which count with all that they may have"
        )
        raise _error(msg, _BYTES_RETRY_S)
    return limit - count


async def _limit(session: AsyncSession, account_id: UUID, own: InstrumentedAttribute[int | None], default: int) -> int:
    """Lock the account and return its own limit, or the default."""
    # FOR NO KEY UPDATE: other transactions can still insert rows that refer to the account.
    locked = select(own).where(Account.id == account_id).with_for_update(key_share=True)
    # The wait occupies a connection, which other accounts may need. The bound ends with the transaction.
    await session.execute(select(func.set_config("lock_timeout", f"{_LOCK_MS}ms", True)))
    try:
        limit = (await session.execute(locked)).scalar_one()
    except DBAPIError as error:
        if not is_locked(error):
            raise
        msg = f"another request of the account has held its limits for {_LOCK_MS / 1000:g} s; send fewer at a time, and retry"
        raise UnavailableError(msg, headers={"Retry-After": "1"}) from error
    return default if limit is None else limit


async def _count(session: AsyncSession, wanted: Select[Any]) -> int:
    # A statement of its own after the lock has a newer snapshot: it sees what the lock's last holder committed.
    return int((await session.execute(wanted)).scalar_one())


def _value(wanted: Select[Any]) -> ColumnElement[int]:
    """Return the one value of a query, or 0 when it has no row."""
    return func.coalesce(wanted.scalar_subquery(), 0)


def _error(message: str, retry_after_s: int) -> LimitError:
    return LimitError(message, headers={"Retry-After": str(retry_after_s)})
