"""Registers the LoRA of a trained tune in the library, once."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload import repository, transitions
from services.upload.intake.copies import Copies
from services.upload.settings import UploadSettings
from shared.accounts import names
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context, Tune
from shared.errors import DiskError, InvalidError, NotFoundError, public_reason
from shared.failures import is_unavailable
from shared.formats import readers, sandbox
from shared.formats.lora.info import LoraInfo
from shared.ids import new_id
from shared.messaging import events, outbox
from shared.scratch import Scratch
from shared.states import TuneState
from shared.telemetry import get_logger

log = get_logger(__name__)


class Registration:
    """Copies a tune's LoRA to the library's prefix, verifies the copy, and gives it the tune's name.

    Registration is idempotent: a partial unique index allows one asset per tune, and a second attempt republishes the event
    of the first. It reads only the tune's row, so that it works also when the event `tune.trained` was lost.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: UploadSettings, scratch: Scratch | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._scratch = scratch or Scratch(settings.work_dir)

    async def register(self, tune_id: str) -> None:
        """Register the tune's LoRA, or publish why it cannot be.

        Raises UnavailableError when the store is unavailable, and DiskError or OSError when the disk is full or fails; the last
        of the attempts publishes that instead.
        """
        async with self._database.begin() as session:
            tune = await repository.tune(session, tune_id)
            if tune is None or tune.state != TuneState.PUBLISHING or tune.lora_key is None:
                return
            if await self._republish(session, tune_id):
                return
            attempt = await repository.claim_registration(session, tune_id, self._settings.registration_bound_s)
        if attempt is None:
            return
        most = self._settings.registration_attempts
        if attempt > most:
            await self._reject(tune, f"the LoRA could not be registered: the process ended in each of {most} attempts")
            return
        try:
            await self._attempt(tune, tune.lora_key)
        except Exception as error:
            if is_unavailable(error) and not isinstance(error, DiskError):
                async with self._database.begin() as session:
                    await repository.give_back_registration(session, tune_id)
                raise
            if attempt < most:
                raise
            await self._reject(tune, f"the LoRA could not be registered in {most} attempts: {public_reason(error)}")
            log.exception("registration.failed", tune_id=tune_id)

    async def _attempt(self, tune: Tune, source: str) -> None:
        asset_id = new_id("asset")
        key = f"assets/{asset_id}/lora.safetensors"
        copies = Copies(self._database, self._blobs)
        try:
            stored, info = await self._copy(tune, source, await copies.stage(key))
        except Exception as error:
            await copies.discard()
            if not isinstance(error, InvalidError | NotFoundError):
                raise
            await self._reject(tune, error.message)
            return
        async with self._database.begin() as session:
            await blob_rows.commit(session, key, stored)
            asset = await transitions.create_lora_of_tune(session, _row(tune, asset_id, key, stored, info))
            if asset is None:
                await blob_rows.orphan(session, key)
            else:
                await names.hand_over(session, tune.id, asset_id)
                await repository.end_registration(session, tune.id)
        if asset is None:
            await self._reject(tune, f"the name {tune.name!r} is in use by another asset; tune again under another name")
            return
        log.info("lora.registered", tune_id=tune.id, asset_id=asset_id)

    async def _copy(self, tune: Tune, source: str, key: str) -> tuple[Stored, LoraInfo]:
        await self._blobs.copy(source, key)
        with self._scratch.temporary("registration-") as folder:
            path = folder / "lora.safetensors"
            stored = await self._blobs.get_file(key, path)
            if stored.sha256 != tune.lora_sha256:
                msg = f"the tune's LoRA has the SHA-256 {stored.sha256}, but the trainer stored {tune.lora_sha256}"
                raise InvalidError(msg)
            return stored, await sandbox.read(readers.LORA, "the tune's LoRA", path)

    async def _republish(self, session: AsyncSession, tune_id: str) -> bool:
        """Publish `asset.ready` again if the tune's LoRA has been registered; return whether it has.

        That holds also for a LoRA that was deleted since: the tune succeeded.
        """
        asset = await repository.lora_of_tune(session, tune_id)
        if asset is not None:
            await outbox.publish(session, Context.UPLOAD, transitions.ready(asset))
        return asset is not None

    async def _reject(self, tune: Tune, reason: str) -> None:
        """Publish that the tune gets no LoRA, unless another replica has registered it.

        No asset is written: the tune keeps the name until the scheduler has failed it.
        """
        async with self._database.begin() as session:
            # After a registration the tune's own copy may have been collected: then it is missing without a fault.
            if await self._republish(session, tune.id):
                return
            rejected = events.AssetRejected(
                asset_id=new_id("asset"), account_id=str(tune.account_id), version=1, reason=reason, tune_id=tune.id
            )
            await outbox.publish(session, Context.UPLOAD, rejected)
            await repository.end_registration(session, tune.id)
        log.error("lora.rejected", tune_id=tune.id, reason=reason)


def _row(tune: Tune, asset_id: str, key: str, stored: Stored, info: LoraInfo) -> dict[str, Any]:
    return {
        "id": asset_id,
        "account_id": tune.account_id,
        "asset_type": "lora",
        "name": tune.name,
        "description": tune.description,
        "status": "ready",
        "data": {
            "asset_type": "lora",
            "engine": tune.engine,
            "file_format": "safetensors",
            "data_type": info.data_type,
            "trigger_words": [tune.trigger_word],
            "checkpoint": tune.base_asset_id,
            "base_sha256": tune.base_sha256,
            "shape_class": tune.shape_class,
            "rank": info.rank,
            "key_format": info.key_format,
        },
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "blob_key": key,
        "tune_id": tune.id,
    }
