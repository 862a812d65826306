"""Looks at what was uploaded and gives the verdict: ready, or rejected with the reason."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from services.upload import repository, transitions
from services.upload.intake.readers import READERS
from services.upload.settings import UploadSettings
from services.upload.transitions import Accepted
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.engines import Engine
from shared.errors import InvalidError, NotFoundError, UnavailableError
from shared.formats import checkpoint
from shared.formats.image import clean
from shared.ids import new_ulid
from shared.safety import Safety
from shared.telemetry import get_logger

log = get_logger(__name__)


class Intake:
    """Checks uploads. Runs outside of any transaction; the one UPDATE at its end decides, and only one can win.

    Each attempt writes under a key of its own. So a second attempt, by a replica that was told again, can never write over
    the bytes that the first one has vouched for; the loser's copy is orphaned.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._safety = Safety.from_settings(settings)

    async def check(self, asset_id: str) -> None:
        """Give the verdict on an upload. Raises UnavailableError when the store is away: then nothing is decided."""
        async with self._database.begin() as session:
            asset = await repository.get(session, asset_id)
        # An import is `uploaded` from its start, and has been since `uploaded_at` once its bytes are there.
        if asset is None or asset.status != "uploaded" or asset.uploaded_at is None or asset.staging_key is None:
            return
        self._settings.work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="intake-", dir=self._settings.work_dir) as folder:
            try:
                accepted = await self._look_at(asset, asset.staging_key, Path(folder))
            except (InvalidError, NotFoundError) as error:
                await transitions.refuse(self._database, asset, "rejected", error.message)
            except (UnavailableError, OSError):
                raise
            except Exception:
                # Ours to mend, and the same again on every try: said so instead of looping for ever.
                log.exception("intake.failed", asset_id=asset_id)
                reason = "the file could not be checked: an unexpected error, which is in the log"
                await transitions.refuse(self._database, asset, "error", reason)
            else:
                await transitions.accept(self._database, asset, accepted)

    async def _look_at(self, asset: Asset, staging_key: str, folder: Path) -> Accepted:
        if asset.asset_type == "file":
            return await self._look_at_picture(asset, staging_key, folder)
        # A checkpoint may be a tar, too, which its bytes tell once they are here.
        suffix = "checkpoint" if asset.asset_type == "checkpoint" else "safetensors"
        key = await self._stage(asset, suffix, "application/octet-stream")
        # Copied first and read then: whoever has the presigned URL may still write to the staging key.
        await self._blobs.copy(staging_key, key)
        path = folder / f"upload.{suffix}"
        stored = await self._get(key, path, asset)
        read = READERS.get(asset.asset_type, _checkpoint_data)
        return Accepted(key, stored, await asyncio.to_thread(read, path, asset))

    async def _look_at_picture(self, asset: Asset, staging_key: str, folder: Path) -> Accepted:
        source, target = folder / "upload", folder / "clean"
        await self._get(staging_key, source, asset)
        image = await clean(source, target, max_pixels=self._settings.max_pixels)
        if self._safety:
            await asyncio.to_thread(_check_safety, self._safety, target)
        key = await self._stage(asset, image.file_format, image.content_type)
        stored = await self._blobs.put_file(key, target, image.content_type)
        return Accepted(key, stored, {"file_format": image.file_format, "width": image.width, "height": image.height})

    async def _get(self, key: str, path: Path, asset: Asset) -> Stored:
        # Again, since what lies there may have been replaced after complete-upload looked at it.
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
    """Ask the safety checker about a clean copy. Raises InvalidError when it finds it unsafe."""
    # Here, so that only who has a checker pays for Pillow.
    from PIL import Image  # noqa: PLC0415

    with Image.open(path) as image:
        verdict = safety.judge(image)
    if verdict.is_unsafe:
        msg = f"the safety checker refuses the picture: it scores {verdict.score:.2f}, where 0 is safe and 1 is not"
        raise InvalidError(msg)


def _checkpoint_data(path: Path, asset: Asset) -> dict[str, Any]:
    """Read what the checkpoint says of itself. Raises InvalidError."""
    info = checkpoint.read_file(path)
    # SSD is SDXL with fewer blocks: the file's own words for both are the same.
    is_ssd = (asset.data["engine"], info.engine) == (Engine.SSD, Engine.SDXL)
    if info.engine != asset.data["engine"] and not is_ssd:
        msg = f"data.engine says {asset.data['engine']}, but the file is a checkpoint for {info.engine}"
        raise InvalidError(msg)
    return info.data
