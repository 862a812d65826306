"""Pictures that come with a request: decoded within bounds, written anew, and stored before anybody is told of them.

They pass the same decoder as uploads. What travels by Kafka and stands in the database is their keys.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import ImageRef
from services.inference.settings import InferenceSettings
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import InvalidError
from shared.formats import image as image_files

_DATA_URL = re.compile(r"data:image/[a-z]+;base64,")
_AT_ONCE = 4
FIELDS = ("init_image", "mask_image", "controlnet_image")


@dataclass(frozen=True)
class Taken:
    """A clean copy in the store, whose row is still staged."""

    ref: ImageRef
    stored: Stored


class Pictures:
    """Takes in the pictures of requests."""

    def __init__(self, settings: InferenceSettings, database: Database, blobs: Blobs) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        # Each decodes in a process of its own, which may take a gigabyte.
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def take(self, generation_id: str, encoded: dict[str, str]) -> dict[str, Taken]:
        """Check and store base 64 pictures by field. Raises InvalidError that names the field."""
        taken = await asyncio.gather(*(self._take(generation_id, field, text) for field, text in encoded.items()))
        return dict(zip(encoded, taken, strict=True))

    async def _take(self, generation_id: str, field: str, text: str) -> Taken:
        data = _decoded(field, text)
        await asyncio.to_thread(self._settings.work_dir.mkdir, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._settings.work_dir) as folder:
            source, target = Path(folder) / "source", Path(folder) / "clean"
            await asyncio.to_thread(source.write_bytes, data)
            async with self._slots:
                try:
                    clean = await image_files.clean(source, target, max_pixels=self._settings.max_pixels)
                except InvalidError as error:
                    msg = f"{field}: {error.message}"
                    raise InvalidError(msg, loc=("body", field)) from error
            key = f"generations/{generation_id}/inputs/{field}.{clean.file_format}"
            async with self._database.begin() as session:
                await blob_rows.stage(session, Context.IMAGES, key, content_type=clean.content_type)
            stored = await self._blobs.put_file(key, target, clean.content_type)
        return Taken(ImageRef(key=key, width=clean.width, height=clean.height), stored)


async def settle(session: AsyncSession, taken: dict[str, Taken]) -> None:
    """Commit the pictures' rows in the transaction of the request that needs them.

    Nothing else will ever need them, so they are given up at once: the collector keeps them until the request has ended.
    """
    for one in taken.values():
        await blob_rows.commit(session, one.ref.key, one.stored)
    await blob_rows.orphan(session, *(one.ref.key for one in taken.values()))


def _decoded(field: str, text: str) -> bytes:
    prefix = _DATA_URL.match(text)
    try:
        return base64.b64decode("".join(text[prefix.end() if prefix else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"{field}: not base 64: {error}"
        raise InvalidError(msg, loc=("body", field)) from error
