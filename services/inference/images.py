"""The images of a request: decoded within limits, encoded again, and stored before a worker hears of the request.

They pass the same decoder as uploads. Kafka and the database carry their keys only.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import ImageRef
from services.inference.settings import InferenceSettings
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import InvalidError, UnavailableError
from shared.formats import image as image_format
from shared.scratch import Scratch
from shared.shares import Shares
from shared.telemetry import get_logger

log = get_logger(__name__)

_DATA_URL = re.compile(r"\s*data:[\w/.+-]*(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*(?:https?|file|s3|blob):", re.IGNORECASE)
_SAFE = str.maketrans("-_", "+/")
_AT_ONCE = 4
_WAIT_S = 20.0
FIELDS = ("init_image", "mask_image", "controlnet_image")


@dataclass(frozen=True)
class StagedImage:
    """A clean copy in the store, whose row is still staged."""

    ref: ImageRef
    stored: Stored


class ImageIntake:
    """Checks and stores the images of requests."""

    def __init__(self, settings: InferenceSettings, database: Database, blobs: Blobs) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._scratch = Scratch(settings.work_dir)
        # Each image is decoded in a process of its own, which may use a gigabyte.
        self._slots = Shares(_AT_ONCE)

    async def stage(self, account_id: UUID, generation_id: str, encoded: dict[str, str]) -> dict[str, StagedImage]:
        """Check and store base64 images by field. Raises InvalidError that names the field, and LimitError after a long wait."""
        staged: dict[str, StagedImage] = {}
        try:
            # One after the other: a request must not use more than one of its account's slots.
            for field, text in encoded.items():
                staged[field] = await self._stage(account_id, generation_id, field, text)
        except BaseException:
            await self.discard(staged)
            raise
        return staged

    async def discard(self, staged: dict[str, StagedImage]) -> None:
        """Delete the images of a request that was not accepted. What cannot be deleted now is left to the collector."""
        keys = [image.ref.key for image in staged.values()]
        if not keys:
            return
        try:
            async with self._database.begin() as session:
                await blob_rows.orphan(session, *keys)
            for key in keys:
                await self._blobs.delete(key)
        except Exception as error:  # noqa: BLE001 - the reason of the refusal matters more
            log.warning("images.left", keys=keys, error=repr(error))

    async def _stage(self, account_id: UUID, generation_id: str, field: str, text: str) -> StagedImage:
        data = _decoded(field, text)
        with self._scratch.temporary("images-") as folder:
            source, target = folder / "source", folder / "clean"
            await asyncio.to_thread(source.write_bytes, data)
            busy = "the account's other images are still being checked; send fewer at a time, and retry in 1 s"
            async with self._slots.slot(account_id, wait_s=_WAIT_S, message=busy):
                try:
                    clean = await image_format.clean(source, target, max_pixels=self._settings.max_pixels)
                except InvalidError as error:
                    msg = f"{field}: {error.message}"
                    raise InvalidError(msg, loc=("body", field)) from error
                except OSError as error:
                    msg = f"{field}: this server has no memory or disk to check the image now; retry the request"
                    raise UnavailableError(msg, headers={"Retry-After": "5"}) from error
            key = f"generations/{generation_id}/inputs/{field}.{clean.file_format}"
            async with self._database.begin() as session:
                await blob_rows.stage(session, Context.IMAGES, key, content_type=clean.content_type)
            stored = await self._blobs.put_file(key, target, clean.content_type)
        return StagedImage(ImageRef(key=key, width=clean.width, height=clean.height), stored)


async def commit(session: AsyncSession, staged: dict[str, StagedImage]) -> None:
    """Commit the rows of the images in the transaction that stores their request.

    No other request uses them, so they are orphaned at once: the collector keeps them until the request has ended.
    """
    for image in staged.values():
        await blob_rows.commit(session, image.ref.key, image.stored)
    await blob_rows.orphan(session, *(image.ref.key for image in staged.values()))


def _decoded(field: str, text: str) -> bytes:
    """Return the bytes of an image. The alphabet of URLs is read as well, and padding may be missing."""
    if _ADDRESS.match(text):
        msg = f"{field}: an address is not read; send the bytes of a JPEG or PNG, base64-encoded"
        raise InvalidError(msg, loc=("body", field))
    prefix = _DATA_URL.match(text)
    letters = "".join(text[prefix.end() if prefix else 0 :].split()).translate(_SAFE).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"{field}: not base64: {error}; send the bytes of a JPEG or PNG, base64-encoded"
        raise InvalidError(msg, loc=("body", field)) from error
