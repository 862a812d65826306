"""The copies that one attempt writes to the store, which are deleted when the attempt fails."""

from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.telemetry import get_logger

log = get_logger(__name__)


class Copies:
    """Stages the keys of an attempt's copies.

    Without `discard` a failed attempt would leave its copy in the store until the collector finds it, some hours later, and
    each retry would leave one more.
    """

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs
        self._keys: list[str] = []

    async def stage(self, key: str, content_type: str = "application/octet-stream") -> str:
        """Announce a copy under this key, and return the key."""
        async with self._database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, key, content_type=content_type)
        self._keys.append(key)
        return key

    async def discard(self) -> None:
        """Delete the copies, of which none may have been committed. What cannot be deleted now is left to the collector."""
        keys, self._keys = self._keys, []
        if not keys:
            return
        try:
            async with self._database.begin() as session:
                await blob_rows.orphan(session, *keys)
            for key in keys:
                await self._blobs.delete(key)
        except Exception as error:  # noqa: BLE001 - the reason of the attempt's failure matters more
            log.warning("copies.left", keys=keys, error=repr(error))
