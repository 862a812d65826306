"""Deletes what the store has in staging and should not: more bytes than their upload reserved, or bytes of no open upload.

A presigned URL and credentials for one object limit neither the size nor, in parts, the number of bytes, and are valid for
longer than the upload that they were made for.
"""

from sqlalchemy import select

from services.upload import repository
from shared.blobs.store import Blobs
from shared.database.exclusive import alone
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.telemetry import get_logger

log = get_logger(__name__)

_PREFIX = "staging/"
_BATCH = 500
_MOST_UPLOADS = 20
_GRACE_S = 60.0
"""How long an object may wait for the request that completes its upload, which refuses one that is too large with the reason."""


class StagingCheck:
    """Compares staging with the uploads that are open. One process at a time does so; deleting twice does no harm."""

    def __init__(self, database: Database, blobs: Blobs, *, grace_s: float = _GRACE_S) -> None:
        self._database = database
        self._blobs = blobs
        self._grace_s = grace_s

    async def run_once(self) -> list[str]:
        """Delete what is too large or belongs to no open upload, abort uploads in parts that are, and return the keys.

        Returns nothing while another process does so.
        """
        deleted: list[str] = []
        async with alone(self._database, "staging") as mine:
            if not mine:
                return deleted
            async for page in self._blobs.pages(_PREFIX, _BATCH):
                sizes = {item.key: item.size_bytes for item in page if item.age_s >= self._grace_s}
                for key in await self._too_large(sizes):
                    await self._blobs.delete(key)
                    deleted.append(key)
            after = ""
            while keys := await self._may_have_parts(after):
                deleted += await self._abort_too_large(keys)
                after = keys[-1]
        if deleted:
            log.warning("staging.deleted", keys=deleted[:20], objects=len(deleted))
        return deleted

    async def _may_have_parts(self, after: str) -> list[str]:
        async with self._database.begin() as session:
            return await repository.part_uploads(session, after, _BATCH)

    async def _abort_too_large(self, keys: list[str]) -> list[str]:
        uploads = {key: await self._blobs.uploads_in_parts(key) for key in keys}
        with_parts = {key: found for key, found in uploads.items() if found}
        # An object of the same key may be there already.
        sizes = {key: sum(found.values()) + (await self._blobs.size(key) or 0) for key, found in with_parts.items()}
        # A client needs one upload at a time, and each empty one costs the store, too.
        many = {key for key, found in with_parts.items() if len(found) > _MOST_UPLOADS}
        refused = sorted(many | set(await self._too_large(sizes)))
        for key in refused:
            for upload_id in with_parts[key]:
                await self._blobs.abort_upload(key, upload_id)
        async with self._database.begin() as session:
            await repository.forget_part_uploads(session, uploads.keys() - with_parts.keys())
        return refused

    async def _too_large(self, sizes: dict[str, int]) -> list[str]:
        keys = sorted(sizes)
        found: list[str] = []
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            # After the listing: an upload that has begun meanwhile has its row already.
            allowed = select(Asset.staging_key, Asset.reserved_bytes, Asset.size_bytes).where(
                Asset.id.in_([key.rpartition("/")[2] for key in batch]), Asset.status.in_(["ready_to_upload", "uploaded"])
            )
            async with self._database.begin() as session:
                most = {key: max(reserved, size) for key, reserved, size in await session.execute(allowed)}
            found += [key for key in batch if sizes[key] > most.get(key, -1)]
        return found
