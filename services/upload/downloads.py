"""Files of assets to take along: as they are, or a LoRA in the layout of another program."""

import asyncio
from io import BytesIO
from pathlib import Path

from services.upload import repository
from services.upload.schemas import Download
from services.upload.settings import UploadSettings
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.errors import ConflictError, InvalidError, UnavailableError
from shared.formats import readers, sandbox, tar
from shared.formats.lora.layouts import LoraLayout
from shared.ids import new_ulid
from shared.scratch import Scratch

PREFIX = "downloads/"
_WAIT_S = 60.0
"""How long a request waits for its turn to convert a file."""
_LORA_END = ".safetensors"


class Downloads:
    """Makes what a user downloads. A file in another layout is kept as an orphan, which the collector deletes."""

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings, scratch: Scratch | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._scratch = scratch or Scratch(settings.work_dir)
        self._turn = asyncio.Lock()

    async def get(self, asset: Asset, layout: LoraLayout | None, *, is_own: bool) -> Download:
        """Return the link to an asset's file.

        Raises InvalidError for a layout that the file cannot have, ConflictError while the asset has no file, and
        UnavailableError when other files are converted for too long.
        """
        key = asset.original_key if is_own and asset.original_key else asset.blob_key
        if asset.status != "ready" or key is None:
            msg = f"asset {asset.id} is {asset.status} and has no file to download; wait until it is ready"
            raise ConflictError(msg)
        if layout is not None and asset.asset_type != "lora":
            msg = f"format: {layout} is a layout of LoRAs, and {asset.name!r} is a {asset.asset_type}; leave format out"
            raise InvalidError(msg, loc=("query", "format"))
        if layout is None or asset.data.get("key_format") == layout:
            size_bytes = asset.size_bytes if is_own else asset.copy_bytes or asset.size_bytes
            return self._link(key, f"{asset.name}.{await self._ending(asset, key)}", size_bytes)
        made, size_bytes = await self._converted(asset, key, layout)
        return self._link(made, f"{asset.name}-{layout}{_LORA_END}", size_bytes)

    async def _ending(self, asset: Asset, key: str) -> str:
        """Return the ending that programs expect of an asset's file."""
        if asset.asset_type == "file":
            async with self._database.begin() as session:
                kind = await repository.content_type(session, key)
            return {"image/jpeg": "jpg"}.get(kind, kind.partition("/")[2])
        if asset.asset_type == "checkpoint" and tar.is_tar(BytesIO(await self._blobs.get_head(key, tar.BLOCK_BYTES))):
            return "tar"
        return "safetensors"

    def _link(self, key: str, name: str, size_bytes: int) -> Download:
        url = self._blobs.presign_get(key, self._settings.download_url_s, file_name=name)
        return Download(url=url, file_name=name, size_bytes=size_bytes)

    async def _converted(self, asset: Asset, source: str, layout: LoraLayout) -> tuple[str, int]:
        """Return the key and the size of the LoRA in a layout; one that was made before is used while its link lasts."""
        start = f"{PREFIX}{asset.id}/{layout}/"
        fresh_s = self._settings.blob_grace_s - self._settings.download_url_s
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._turn.acquire()
        except TimeoutError:
            msg = "other LoRAs are being converted; retry in some seconds"
            raise UnavailableError(msg) from None
        try:
            async with self._database.begin() as session:
                if made := await repository.made_download(session, start, fresh_s):
                    return made
            with self._scratch.temporary("download-") as folder:
                return await self._convert(asset, source, layout, f"{start}{new_ulid()}{_LORA_END}", folder)
        finally:
            self._turn.release()

    async def _convert(self, asset: Asset, source: str, layout: LoraLayout, key: str, folder: Path) -> tuple[str, int]:
        original, path = folder / "original", folder / "converted"
        await self._blobs.get_file(source, original)
        title = {"modelspec.title": asset.name, "ss_output_name": asset.name}
        if words := asset.data.get("trigger_words"):
            title["modelspec.trigger_phrase"] = ", ".join(words)
        if asset.description:
            title["modelspec.description"] = asset.description
        try:
            await sandbox.read(readers.CONVERTED_LORA, "the LoRA", original, layout, title, target=path)
        except InvalidError as error:
            raise InvalidError(error.message, loc=("query", "format")) from error
        async with self._database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, key)
        stored = await self._blobs.put_file(key, path)
        async with self._database.begin() as session:
            await blob_rows.commit(session, key, stored)
            # Nothing refers to it: it is deleted after the grace period, which is longer than its link is valid.
            await blob_rows.orphan(session, key)
        return key, stored.size_bytes
