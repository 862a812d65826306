"""Brings files into the library that the server fetches by itself, and lets intake look at them as at any upload."""

import asyncio
import tempfile
from pathlib import Path

from pydantic import SecretStr

from services.upload import repository, transitions
from services.upload.imports import hub
from services.upload.imports.fetching import Fetcher
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.accounts import quotas
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.errors import InvalidError, LimitError, UnavailableError
from shared.telemetry import get_logger

log = get_logger(__name__)

_PAUSES_S = (2.0, 10.0)
"""Between tries, when a host does not answer as it should."""
_AGAIN_S = 5.0
_BATCH = 100


class Importer:
    """Fetches what `url` and `hf_repo` name, a few at a time.

    An import's row says all that is needed to begin again, so a process that dies loses only time: another takes the row over
    once nobody has been at it for a while. All but the token: that lives here, in memory, for as long as its import, and an
    import that has lost it ends in `error`.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings, fetcher: Fetcher) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._fetcher = fetcher
        self._queue = WorkQueue(settings.import_concurrency)
        self._mine: dict[str, SecretStr | None] = {}
        """The imports that wait or run in this process."""

    def start(self, asset_id: str, token: SecretStr | None = None) -> None:
        """Have an import done soon."""
        self._mine.setdefault(asset_id, token)
        self._queue.put(asset_id, self.bring)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._queue.run()

    async def look_after(self) -> None:
        """Say that somebody is at our imports, and take over those of processes that are gone."""
        async with self._database.begin() as session:
            if self._mine:
                await repository.keep_alive(session, list(self._mine))
            left = await repository.take_over_imports(session, self._settings.import_silence_s, _BATCH)
        for asset_id in left:
            log.warning("import.taken_over", asset_id=asset_id)
            self.start(asset_id)

    async def bring(self, asset_id: str) -> None:
        """Fetch an import's file into staging, or end it with the reason.

        Raises when the database or the store is away, and then begins again after a while.
        """
        try:
            await self._bring(asset_id)
        except Exception:
            asyncio.get_running_loop().call_later(_AGAIN_S, self._queue.put, asset_id, self.bring)
            raise
        self._mine.pop(asset_id, None)

    async def _bring(self, asset_id: str) -> None:
        async with self._database.begin() as session:
            asset = await repository.get(session, asset_id)
        if asset is None or asset.status != "uploaded" or asset.uploaded_at is not None:
            return
        # A long way for nothing otherwise.
        await self._blobs.ping()
        token = self._mine.get(asset_id)
        if asset.needs_token and token is None:
            reason = "hf_token_secret: the server was restarted before the import ended, and keeps no tokens; create it again"
            await transitions.refuse(self._database, asset, "error", reason)
            return
        self._settings.work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="import-", dir=self._settings.work_dir) as folder:
            try:
                async with asyncio.timeout(self._settings.import_timeout_s):
                    path, size_bytes = await self._fetch(asset, token, Path(folder))
            except TimeoutError:
                reason = f"fetching it took longer than {self._settings.import_timeout_s:g} s"
                await transitions.refuse(self._database, asset, "error", reason)
            except (InvalidError, UnavailableError) as error:
                await transitions.refuse(self._database, asset, "error", error.message)
            except Exception:
                log.exception("import.failed", asset_id=asset_id)
                reason = "the file could not be fetched: an unexpected error, which is in the log"
                await transitions.refuse(self._database, asset, "error", reason)
            else:
                try:
                    await self._hand_over(asset, path, size_bytes)
                except LimitError as error:
                    await transitions.refuse(self._database, asset, "error", error.message)

    async def _fetch(self, asset: Asset, token: SecretStr | None, folder: Path) -> tuple[Path, int]:
        for pause_s in _PAUSES_S:
            try:
                return await self._fetch_once(asset, token, folder)
            except UnavailableError as error:
                log.warning("import.again", asset_id=asset.id, reason=error.message, in_s=pause_s)
                await asyncio.sleep(pause_s)
        return await self._fetch_once(asset, token, folder)

    async def _fetch_once(self, asset: Asset, token: SecretStr | None, folder: Path) -> tuple[Path, int]:
        limit = self._settings.max_bytes(asset.asset_type)
        if asset.url is not None:
            path = folder / "import"
            return path, await self._fetcher.fetch(asset.url, path, max_bytes=limit)
        return await hub.bring(
            self._fetcher,
            self._settings.hf_endpoint,
            asset.hf_repo or "",
            asset.asset_type,
            folder,
            max_bytes=limit,
            token=token.get_secret_value() if token else None,
        )

    async def _hand_over(self, asset: Asset, path: Path, size_bytes: int) -> None:
        await self._blobs.put_file(asset.staging_key or "", path)
        async with self._database.begin() as session:
            await quotas.admit_bytes(session, asset.account_id, self._settings, size_bytes, asset.id)
            if await transitions.complete_import(session, asset.id, size_bytes) is None:
                # Deleted meanwhile: its blob was given up then, and is again, since its bytes came later.
                await blob_rows.orphan(session, asset.staging_key or "")
                return
        log.info("asset.imported", asset_id=asset.id, asset_type=asset.asset_type, size_bytes=size_bytes)
