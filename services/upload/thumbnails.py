"""Makes the thumbnails of images, also of those that were there before there were thumbnails.

An image is ready without its thumbnail, which follows within seconds: one child makes many, while each image of an upload is
checked in a child of its own.
"""

from services.upload import repository
from services.upload.intake.copies import Copies
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.exclusive import alone
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.failures import is_unavailable
from shared.formats.sandbox import Sandbox
from shared.formats.thumbnail import READER, Thumbnail
from shared.ids import new_ulid
from shared.scratch import Scratch
from shared.telemetry import get_logger

log = get_logger(__name__)

_MAX_IMAGE_BYTES = 256 * 2**20
_TYPE = "image/webp"


class Thumbnails:
    """Makes missing thumbnails, the newest image's first: somebody may look at it now."""

    def __init__(self, database: Database, blobs: Blobs, scratch: Scratch) -> None:
        self._database = database
        self._blobs = blobs
        self._scratch = scratch

    async def run_once(self) -> None:
        """Make all that are missing. One process at a time does this. Raises UnavailableError while the store is unavailable."""
        async with alone(self._database, "thumbnails") as mine, Sandbox(READER) as sandbox:
            while mine and (asset := await self._claim()) is not None:
                await self._make(sandbox, asset)

    async def _claim(self) -> Asset | None:
        async with self._database.begin() as session:
            return await repository.claim_thumbnail(session)

    async def _make(self, sandbox: Sandbox[Thumbnail], asset: Asset) -> None:
        copies = Copies(self._database, self._blobs)
        try:
            with self._scratch.temporary("thumbnail-") as folder:
                source, target = folder / "clean", folder / "thumbnail"
                await self._blobs.get_file(asset.blob_key or "", source, max_bytes=_MAX_IMAGE_BYTES)
                await sandbox.read("the image", source, target=target)
                key = await copies.stage(f"assets/{asset.id}/{new_ulid()}.webp", _TYPE)
                stored = await self._blobs.put_file(key, target, _TYPE)
            async with self._database.begin() as session:
                await blob_rows.commit(session, key, stored)
                if not await repository.set_thumbnail(session, asset.id, key, stored.size_bytes):
                    await blob_rows.orphan(session, key)
        except Exception as error:
            await copies.discard()
            if is_unavailable(error):
                async with self._database.begin() as session:
                    await repository.give_back_thumbnail(session, asset.id)
                raise
            # The image stays without one after some attempts; its own URL serves instead.
            log.warning("thumbnail.failed", asset_id=asset.id, error=repr(error))
