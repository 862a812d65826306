"""Checks an uploaded file and gives the verdict: the asset becomes ready, or rejected with the reason."""

import asyncio
import tempfile
from pathlib import Path

from services.upload import repository, transitions
from services.upload.intake.readers import READERS
from services.upload.settings import UploadSettings
from services.upload.transitions import Accepted
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.errors import InvalidError, NotFoundError, UnavailableError
from shared.formats.image import clean
from shared.ids import new_ulid
from shared.safety import Safety
from shared.telemetry import get_logger

log = get_logger(__name__)


class Intake:
    """Checks uploads, outside of any transaction.

    Two replicas may check the same upload when its event is republished. Each attempt writes its copy under a key of its
    own, so that it cannot overwrite bytes that the other has accepted. The UPDATE of the verdict decides which attempt wins,
    and the copy of the other is orphaned.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._safety = Safety.from_settings(settings)

    async def check(self, asset_id: str) -> None:
        """Give the verdict on an upload. Raises UnavailableError, without a verdict, when the store is unavailable."""
        async with self._database.begin() as session:
            asset = await repository.get(session, asset_id)
        # An import is `uploaded` from its start; `uploaded_at` is set once its bytes are in staging.
        if asset is None or asset.status != "uploaded" or asset.uploaded_at is None or asset.staging_key is None:
            return
        self._settings.work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="intake-", dir=self._settings.work_dir) as folder:
            try:
                accepted = await self._inspect(asset, asset.staging_key, Path(folder))
            except (InvalidError, NotFoundError) as error:
                await transitions.refuse(self._database, asset, "rejected", error.message)
            except (UnavailableError, OSError):
                raise
            except Exception:
                # A deterministic bug of ours: record it, do not retry.
                log.exception("intake.failed", asset_id=asset_id)
                reason = "the file could not be checked because of an unexpected error; the log of the upload service shows it"
                await transitions.refuse(self._database, asset, "error", reason)
            else:
                await transitions.accept(self._database, asset, accepted)

    async def _inspect(self, asset: Asset, staging_key: str, folder: Path) -> Accepted:
        if asset.asset_type == "file":
            return await self._inspect_image(asset, staging_key, folder)
        # A checkpoint is safetensors or a tar: only its bytes tell, after they are copied.
        suffix = "checkpoint" if asset.asset_type == "checkpoint" else "safetensors"
        key = await self._stage(asset, suffix, "application/octet-stream")
        # Copy before reading: a client that has the presigned URL can still write to the staging key.
        await self._blobs.copy(staging_key, key)
        path = folder / f"upload.{suffix}"
        stored = await self._get(key, path, asset)
        return Accepted(key, stored, await asyncio.to_thread(READERS[asset.asset_type], path, asset))

    async def _inspect_image(self, asset: Asset, staging_key: str, folder: Path) -> Accepted:
        source, target = folder / "upload", folder / "clean"
        await self._get(staging_key, source, asset)
        image = await clean(source, target, max_pixels=self._settings.max_pixels)
        if self._safety:
            await asyncio.to_thread(_check_safety, self._safety, target)
        key = await self._stage(asset, image.file_format, image.content_type)
        stored = await self._blobs.put_file(key, target, image.content_type)
        return Accepted(key, stored, {"file_format": image.file_format, "width": image.width, "height": image.height})

    async def _get(self, key: str, path: Path, asset: Asset) -> Stored:
        # Check the size again: the object may have been replaced after complete-upload checked it.
        limit = self._settings.max_bytes(asset.asset_type)
        size_bytes = await self._blobs.size(key)
        if size_bytes is not None and size_bytes > limit:
            msg = f"the upload has {size_bytes} bytes; a {asset.asset_type} may have at most {limit}"
            raise InvalidError(msg)
        return await self._blobs.get_file(key, path)

    async def _stage(self, asset: Asset, suffix: str, content_type: str) -> str:
        key = f"assets/{asset.id}/{new_ulid()}.{suffix}"
        async with self._database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, key, content_type=content_type)
        return key


def _check_safety(safety: Safety, path: Path) -> None:
    """Run the safety checker on a clean copy. Raises InvalidError when the image is unsafe."""
    from PIL import Image  # noqa: PLC0415 - only a service with a safety checker loads Pillow

    with Image.open(path) as image:
        verdict = safety.judge(image)
    if verdict.is_unsafe:
        msg = f"the safety checker refuses the image: its score is {verdict.score:.2f}, from 0 (safe) to 1 (unsafe)"
        raise InvalidError(msg)
