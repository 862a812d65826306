"""Fetches the files of imports into staging, where intake checks them as it checks any upload."""

import asyncio
from pathlib import Path
from uuid import UUID

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
from shared.errors import DiskError, InvalidError, LimitError, UnavailableError
from shared.scratch import Scratch
from shared.telemetry import get_logger

log = get_logger(__name__)

_PAUSES_S = (2.0, 10.0)
"""Pauses before the retries of a fetch whose host is unavailable."""
_RETRY_S = 5.0
"""Pause before an import is retried when the database or the store is unavailable."""
_BATCH = 100


class Importer:
    """Fetches what `url` and `hf_repo` name, a few at a time.

    An import's row has all that a new attempt needs. When a process dies, another one takes its imports over, once their
    heartbeat is late. Only the token is not in the row: it stays in the memory of this process until its import ends, and an
    import whose token is lost ends in `error`.
    """

    def __init__(
        self, database: Database, blobs: Blobs, settings: UploadSettings, fetcher: Fetcher, scratch: Scratch | None = None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._fetcher = fetcher
        self._scratch = scratch or Scratch(settings.work_dir)
        self._queue = WorkQueue(settings.import_concurrency)
        self._mine: dict[str, SecretStr | None] = {}
        """The imports that wait or run in this process, with their tokens."""
        self._accounts: dict[str, UUID] = {}

    def start(self, asset_id: str, account_id: UUID, token: SecretStr | None = None) -> None:
        """Queue an import of an account, with its token if it has one."""
        self._mine.setdefault(asset_id, token)
        self._accounts[asset_id] = account_id
        self._queue.put(asset_id, self.fetch, account_id)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._queue.run()

    async def heartbeat(self) -> None:
        """Renew the heartbeat of this process's imports, and take over imports whose heartbeat is late."""
        async with self._database.begin() as session:
            if self._mine:
                await repository.renew_imports(session, list(self._mine))
            late = await repository.take_over_imports(session, self._settings.import_silence_s, _BATCH)
        for asset_id, account_id in late:
            log.warning("import.taken_over", asset_id=asset_id)
            self.start(asset_id, account_id)

    async def fetch(self, asset_id: str) -> None:
        """Fetch an import's file into staging, or end the import in `error` with the reason.

        Raises when the database or the store is unavailable, after it has scheduled a retry.
        """
        try:
            await self._fetch_or_refuse(asset_id)
        except Exception:
            asyncio.get_running_loop().call_later(_RETRY_S, self._queue.put, asset_id, self.fetch, self._accounts[asset_id])
            raise
        self._mine.pop(asset_id, None)
        self._accounts.pop(asset_id, None)

    async def _fetch_or_refuse(self, asset_id: str) -> None:
        async with self._database.begin() as session:
            asset = await repository.get(session, asset_id)
        if asset is None or asset.status != "uploaded" or asset.uploaded_at is not None:
            return
        # Fail before the download if the store is unavailable.
        await self._blobs.ping()
        token = self._mine.get(asset_id)
        if asset.needs_token and token is None:
            reason = "hf_token_secret: the server restarted during the import and stores no tokens; create the asset again"
            await transitions.refuse(self._database, asset, "error", reason)
            return
        with self._scratch.temporary("import-") as folder:
            try:
                async with asyncio.timeout(self._settings.import_timeout_s):
                    path, size_bytes = await self._fetch_with_retries(asset, token, folder)
            except TimeoutError:
                reason = f"the import took longer than {self._settings.import_timeout_s:g} s; upload the file instead"
                await transitions.refuse(self._database, asset, "error", reason)
            except (InvalidError, UnavailableError) as error:
                await transitions.refuse(self._database, asset, "error", error.message)
            except Exception:
                log.exception("import.failed", asset_id=asset_id)
                reason = "the file could not be fetched because of an unexpected error; the log of the upload service shows it"
                await transitions.refuse(self._database, asset, "error", reason)
            else:
                try:
                    await self._complete(asset, path, size_bytes)
                except LimitError as error:
                    await transitions.refuse(self._database, asset, "error", error.message)
                except DiskError:
                    reason = "this server's disk is full or fails; create the asset again later, or upload the file instead"
                    await transitions.refuse(self._database, asset, "error", reason)

    async def _fetch_with_retries(self, asset: Asset, token: SecretStr | None, folder: Path) -> tuple[Path, int]:
        for pause_s in _PAUSES_S:
            try:
                return await self._fetch_once(asset, token, folder)
            except UnavailableError as error:
                log.warning("import.retry", asset_id=asset.id, reason=error.message, in_s=pause_s)
                await asyncio.sleep(pause_s)
        return await self._fetch_once(asset, token, folder)

    async def _fetch_once(self, asset: Asset, token: SecretStr | None, folder: Path) -> tuple[Path, int]:
        limit = self._settings.max_bytes(asset.asset_type)
        if asset.url is not None:
            path = folder / "import"
            return path, await self._fetcher.fetch(asset.url, path, max_bytes=limit)
        return await hub.fetch(
            self._fetcher,
            self._settings.hf_endpoint,
            asset.hf_repo or "",
            asset.asset_type,
            folder,
            max_bytes=limit,
            token=token.get_secret_value() if token else None,
        )

    async def _complete(self, asset: Asset, path: Path, size_bytes: int) -> None:
        async with self._database.begin() as session:
            # Before the bytes are stored, and again with the account locked until they are counted.
            await quotas.admit_bytes(session, asset.account_id, self._settings, size_bytes, asset.id)
        await self._blobs.put_file(asset.staging_key or "", path)
        async with self._database.begin() as session:
            await quotas.admit_bytes(session, asset.account_id, self._settings, size_bytes, asset.id)
            if await transitions.complete_import(session, asset.id, size_bytes) is None:
                # The asset was deleted meanwhile, after which these bytes were stored: orphan them again. If another process
                # completed it instead, the collector keeps them until intake has read them.
                await blob_rows.orphan(session, asset.staging_key or "")
                return
        log.info("asset.imported", asset_id=asset.id, asset_type=asset.asset_type, size_bytes=size_bytes)
