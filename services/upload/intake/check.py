"""Checks an uploaded file and gives the verdict: the asset becomes ready, or rejected with the reason."""

import asyncio
from pathlib import Path

from services.upload import repository, transitions
from services.upload.intake.copies import Copies
from services.upload.intake.readers import READERS
from services.upload.settings import UploadSettings
from services.upload.transitions import Accepted
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.errors import DiskError, InvalidError, NotFoundError, TooLargeError, public_reason
from shared.failures import is_unavailable
from shared.formats.image import clean
from shared.ids import new_ulid
from shared.safety import Safety
from shared.scratch import Scratch
from shared.telemetry import get_logger

log = get_logger(__name__)

_REMEDY = "create the asset again, and if that does not help, see the log of the upload service"


class Intake:
    """Checks uploads, outside of any transaction.

    Two replicas may check the same upload when its event is republished. Each attempt writes its copy under a key of its
    own, so that it cannot overwrite bytes that the other has accepted. The UPDATE of the verdict decides which attempt wins,
    and the copy of the other is orphaned. An attempt that fails deletes its copy.

    Attempts are counted in the asset's row, before they begin: a file that ends its process must not do so for ever.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings, scratch: Scratch | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._safety = Safety.from_settings(settings)
        self._scratch = scratch or Scratch(settings.work_dir)
        self._mine: set[str] = set()
        """The uploads that this process is checking."""

    async def check(self, asset_id: str) -> None:
        """Give the verdict on an upload.

        Raises UnavailableError, without a verdict, when the store is unavailable, and DiskError or OSError when the disk is full
        or fails; the last of the attempts gives the verdict `error` instead.
        """
        async with self._database.begin() as session:
            asset = await repository.claim_intake(session, asset_id)
        if asset is None:
            return
        most = self._settings.intake_attempts
        if asset.intake_attempts > most:
            # As when an attempt takes all the memory of its process, which cannot say so any more.
            reason = f"the file could not be checked: the process that checked it ended in each of {most} attempts; {_REMEDY}"
            await transitions.refuse(self._database, asset, "error", reason)
            return
        self._mine.add(asset_id)
        try:
            await self._decide(asset)
        except Exception as error:
            if is_unavailable(error) and not isinstance(error, DiskError):
                # An outage may last longer than all attempts, and is not the file's fault.
                async with self._database.begin() as session:
                    await repository.give_back_intake(session, asset_id)
                raise
            if asset.intake_attempts < most:
                raise
            reason = f"the file could not be checked in {most} attempts: {public_reason(error)}; {_REMEDY}"
            await transitions.refuse(self._database, asset, "error", reason)
            # After the verdict: on a full disk the log may fail as well.
            log.exception("intake.failed", asset_id=asset_id)
        finally:
            self._mine.discard(asset_id)

    async def heartbeat(self) -> None:
        """Note which uploads this process is checking, so that none of them is started a second time meanwhile."""
        if self._mine:
            async with self._database.begin() as session:
                await repository.renew_intakes(session, self._mine)

    async def _decide(self, asset: Asset) -> None:
        copies = Copies(self._database, self._blobs)
        try:
            with self._scratch.temporary("intake-") as folder:
                accepted = await self._inspect(asset, asset.staging_key or "", folder, copies)
        except Exception as error:
            await copies.discard()
            if isinstance(error, InvalidError | NotFoundError | TooLargeError):
                await transitions.refuse(self._database, asset, "rejected", error.message)
            elif isinstance(error, OSError) or is_unavailable(error):
                raise
            else:
                # A deterministic bug of ours: record it, do not retry.
                log.exception("intake.failed", asset_id=asset.id)
                reason = f"the file could not be checked because of an unexpected error; {_REMEDY}"
                await transitions.refuse(self._database, asset, "error", reason)
        else:
            await transitions.accept(self._database, asset, accepted)

    async def _inspect(self, asset: Asset, staging_key: str, folder: Path, copies: Copies) -> Accepted:
        if asset.asset_type == "file":
            return await self._inspect_image(asset, staging_key, folder, copies)
        # A checkpoint is safetensors or a tar: only its bytes tell, after they are copied.
        suffix = "checkpoint" if asset.asset_type == "checkpoint" else "safetensors"
        await self._check_size(staging_key, asset)
        key = await copies.stage(_key(asset, suffix))
        # Copy before reading: a client that has the presigned URL can still write to the staging key.
        await self._blobs.copy(staging_key, key)
        path = folder / f"upload.{suffix}"
        stored = await self._get(key, path, asset)
        return Accepted(key, stored, await READERS[asset.asset_type](path, asset))

    async def _inspect_image(self, asset: Asset, staging_key: str, folder: Path, copies: Copies) -> Accepted:
        source, target = folder / "upload", folder / "clean"
        sent = await self._get(staging_key, source, asset)
        image = await clean(source, target, max_pixels=self._settings.max_pixels)
        if self._safety:
            await asyncio.to_thread(_check_safety, self._safety, target)
        key = await copies.stage(_key(asset, image.file_format), image.content_type)
        stored = await self._blobs.put_file(key, target, image.content_type)
        data = {"file_format": image.file_format, "width": image.width, "height": image.height}
        if stored.sha256 == sent.sha256:
            return Accepted(key, stored, data)
        # From the file that was checked: the object in staging may have been replaced since.
        suffix = {"image/png": "png", "image/jpeg": "jpg"}.get(image.sent_type, "original")
        original_key = await copies.stage(_key(asset, suffix), image.sent_type)
        original = await self._blobs.put_file(original_key, source, image.sent_type)
        return Accepted(key, stored, data, original=(original_key, original), notice=image.notice)

    async def _get(self, key: str, path: Path, asset: Asset) -> Stored:
        return await self._blobs.get_file(key, path, max_bytes=await self._check_size(key, asset))

    async def _check_size(self, key: str, asset: Asset) -> int:
        """Return the largest size that the object may have. Raises InvalidError when it is larger.

        It may have been replaced after complete-upload checked it and the account's limit of stored bytes.
        """
        limit = self._settings.max_bytes(asset.asset_type)
        size_bytes = await self._blobs.size(key)
        if size_bytes is not None and size_bytes > limit:
            msg = f"the upload has {size_bytes} bytes; a {asset.asset_type} may have at most {limit}"
            raise InvalidError(msg)
        if size_bytes is not None and size_bytes > asset.size_bytes:
            msg = f"the upload has {size_bytes} bytes; it had {asset.size_bytes} when it was completed; create the asset again"
            raise InvalidError(msg)
        return min(limit, asset.size_bytes)


def _key(asset: Asset, suffix: str) -> str:
    return f"assets/{asset.id}/{new_ulid()}.{suffix}"


def _check_safety(safety: Safety, path: Path) -> None:
    """Run the safety checker on a clean copy. Raises InvalidError when the image is unsafe."""
    from PIL import Image  # noqa: PLC0415 - only a service with a safety checker loads Pillow

    with Image.open(path) as image:
        verdict = safety.judge(image)
    if verdict.is_unsafe:
        msg = f"the safety checker refuses the image: its score is {verdict.score:.2f}, from 0 (safe) to 1 (unsafe)"
        raise InvalidError(msg)
