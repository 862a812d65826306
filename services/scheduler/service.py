"""Decisions about tunes: which are accepted, when one is queued, and how one ends."""

import builtins
import secrets
from collections.abc import Sequence
from typing import get_args
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.answers import Surroundings, answer
from services.scheduler.checks import check
from services.scheduler.repository import PLATFORM_PREFIX, TuneFilter
from services.scheduler.schemas import MAX_SEED, OPTIONS, CreateTune, TuneAnswer, TuneList, WebhookEvent
from services.scheduler.settings import SchedulerSettings
from shared.accounts import names, quotas
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.tables import Asset, Context, Tune
from shared.errors import ConflictError, InvalidError, NameTakenError, NotFoundError
from shared.ids import new_id
from shared.messaging import outbox
from shared.messaging.events import TuneQueued
from shared.states import CANCELLABLE, LEASED, TERMINAL, TuneState
from shared.tunes import transitions
from shared.tunes.transitions import about


class TuneService:
    """Creates, cancels and deletes tunes, and moves them on; every method works in its caller's transaction."""

    def __init__(self, settings: SchedulerSettings, blobs: Blobs) -> None:
        self.settings = settings
        self._blobs = blobs

    async def create(self, session: AsyncSession, account_id: UUID, body: CreateTune) -> TuneAnswer:
        """Create a tune, and queue it if its files have their verdicts.

        Raises LimitError when the account has too many unfinished tunes, InvalidError for a wrong field, and NameTakenError.
        """
        await quotas.admit_tune(session, account_id, self.settings)
        details = body.details
        base = (await check(session, account_id, body, private_webhooks=self.settings.webhook_allow_private)).base
        if body.dataset_id is not None and not await repository.has_dataset(session, account_id, body.dataset_id):
            msg = f"dataset_id: there is no dataset {body.dataset_id!r} in this account; leave it out, or name one that exists"
            raise InvalidError(msg, loc=("body", "dataset_id"))
        tune_id = new_id("tune")
        await names.reserve(session, account_id, body.name, "tune", tune_id)
        row = {
            "id": tune_id,
            "account_id": account_id,
            "name": body.name,
            "description": body.description or "",
            "base_asset_id": base.id,
            "base_name": base.name if base.account_id == account_id else PLATFORM_PREFIX + base.name,
            "engine": base.data["engine"],
            "base_blob_key": base.blob_key,
            "base_sha256": base.sha256,
            "shape_class": base.data["shape_class"],
            "native_size_px": base.data["native_size_px"],
            "steps": details.steps,
            "seed": secrets.randbelow(MAX_SEED + 1) if details.seed is None else details.seed,
            "trigger_word": details.trigger_word,
            "resize_images": bool(details.resize_images),
            "continue_on_rejection": bool(body.continue_on_rejection),
            "parameters": details.model_dump(mode="json", include=set(OPTIONS), exclude_none=True),
            "webhook": body.webhook,
            "webhook_events": (body.webhook_events_filter or list(get_args(WebhookEvent))) if body.webhook else [],
            "request": details.model_dump(mode="json"),
            "dataset_id": body.dataset_id,
            "state": TuneState.WAITING_FILES,
            "max_attempts": self.settings.max_attempts,
        }
        # Until the commit the collector cannot see that this tune refers to the base, so the pin keeps the base.
        await blob_rows.pin(session, [str(base.blob_key)])
        if not await repository.insert_tune(session, row):
            msg = f"name: a tune named {body.name!r} exists already; choose another name, or delete that one first"
            raise NameTakenError(msg)
        files = [(file.file_id, file.caption_or(details.trigger_word), file.regularization) for file in details.files]
        await repository.insert_files(session, tune_id, files)
        await self.queue_or_fail_by_verdicts(session, tune_id)
        return await self._answer(session, await repository.lock_tune(session, tune_id))

    async def queue_or_fail_by_verdicts(self, session: AsyncSession, tune_id: str) -> None:
        """Record the verdicts on a tune's files; queue or fail the tune once all are known or `files_timeout_s` has passed.

        Safe to call at any time: it decides by the rows alone, and events only say when to call it.
        """
        tune = await repository.lock_tune(session, tune_id)
        if tune.state != TuneState.WAITING_FILES:
            return
        waiting = False
        pending = await repository.pending_files(session, tune_id)
        pinned = await blob_rows.pin_existing(session, {asset.blob_key or "" for _, asset in pending if asset})
        decided: dict[int, str | None] = {}
        for file, asset in pending:
            if asset is not None and asset.status == "ready" and asset.blob_key:
                # The asset may have been deleted since it was read. Then the next call sees that.
                if asset.blob_key in pinned:
                    decided[file.position] = asset.blob_key
                else:
                    waiting = True
            elif asset is not None and asset.status in {"ready_to_upload", "uploaded"}:
                waiting = True
            else:
                decided[file.position] = None
        await repository.set_verdicts(session, tune_id, decided)
        if waiting and await repository.age_s(session, tune_id) < self.settings.files_timeout_s:
            return
        files = (await repository.files_of(session, [tune_id]))[tune_id]
        missing = [file.asset_id for file in files if file.verdict != "ready"]
        if len(missing) == len(files) or (missing and not tune.continue_on_rejection):
            message = f"files: {len(missing)} of {len(files)} files cannot be trained on, the first is {missing[0]}; replace them"
            await transitions.fail(session, tune_id, [], code="files_rejected", message=message)
            return
        await repository.queue(session, tune_id)

    async def get(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Return a tune. Raises NotFoundError."""
        return await self._answer(session, await _own(session, account_id, tune_id))

    async def has_ended(self, session: AsyncSession, account_id: UUID, tune_id: str) -> bool:
        """Return whether a tune has reached its last state. Raises NotFoundError."""
        return (await _own(session, account_id, tune_id)).state in TERMINAL

    async def list(self, session: AsyncSession, account_id: UUID, wanted: TuneFilter, *, offset: int, limit: int) -> TuneList:
        """Return a page of tunes, newest first."""
        tunes, total = await repository.list_tunes(session, account_id, wanted, offset=offset, limit=limit)
        data = await self._answers(session, tunes)
        return TuneList(data=data, has_more=offset + len(data) < total, total=total)

    async def cancel(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Cancel a tune, or ask its trainer to; a repeat is fine. Raises NotFoundError, and ConflictError once it is trained."""
        tune = await _own(session, account_id, tune_id, lock=True)
        if tune.state != TuneState.CANCELLED:
            if tune.state not in CANCELLABLE:
                why = f"it has {tune.state}" if tune.state in TERMINAL else "its LoRA is being published"
                msg = f"tune_id: {tune_id} cannot be cancelled any more, because {why}; delete the tune if it is not wanted"
                raise ConflictError(msg)
            await _stop(session, tune)
        return await self._answer(session, await repository.lock_tune(session, tune_id))

    async def delete(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Delete a tune, and cancel it if it waits or is trained; its images and its LoRA stay. Raises NotFoundError."""
        tune = await _own(session, account_id, tune_id, lock=True)
        if tune.state in CANCELLABLE:
            await _stop(session, tune)
        deleted = await repository.mark_deleted(session, tune_id)
        if deleted.state in TERMINAL:
            await transitions.clear_up(session, deleted)
        return await self._answer(session, deleted)

    async def end_publishing(self, session: AsyncSession, tune_id: str, lora: Asset) -> None:
        """End a tune whose LoRA has its verdict in the library; do nothing when the tune has ended already.

        A LoRA is registered as ready, so one that is deleted now was ready before, and its tune succeeds.
        """
        if lora.status not in {"ready", "deleted"}:
            await self.fail_publishing(session, tune_id, lora.status_details or f"its asset is {lora.status}")
        elif ended := await repository.succeed(session, tune_id, lora.id):
            await transitions.clear_up(session, ended)

    async def fail_publishing(self, session: AsyncSession, tune_id: str, reason: str) -> None:
        """Fail a tune whose LoRA the library refused; do nothing when the tune has ended already."""
        message = f"the LoRA could not be registered in the library: {reason}"
        await repository.fail_publishing(session, tune_id, code="lora_not_registered", message=message)

    async def cancel_queued(self, session: AsyncSession, tune_id: str) -> None:
        """Cancel a queued tune whose cancel was requested; do nothing when that has changed."""
        where = [Tune.state == TuneState.QUEUED, Tune.cancel_requested_at.is_not(None)]
        await transitions.cancel(session, tune_id, where)

    async def republish_queued(self, session: AsyncSession, tune_id: str) -> bool:
        """Republish `tune.queued` for a tune that has been queued for long, in case the first one was lost.

        Returns False when the tune has changed meanwhile.
        """
        tune = await repository.touch_stale_queued(session, tune_id, self.settings.requeue_hint_s)
        if tune is not None:
            await outbox.publish(session, Context.TUNES, TuneQueued(**about(tune)))
        return tune is not None

    async def _answer(self, session: AsyncSession, tune: Tune) -> TuneAnswer:
        return (await self._answers(session, [tune]))[0]

    async def _answers(self, session: AsyncSession, tunes: Sequence[Tune]) -> builtins.list[TuneAnswer]:
        ids = [tune.id for tune in tunes]
        files = await repository.files_of(session, ids)
        keys = await repository.thumbnails(session, ids)
        queued = [tune.id for tune in tunes if tune.state == TuneState.QUEUED]
        ahead = await repository.queued_before(session, queued) if queued else {}
        has_trainer = not queued or await repository.has_trainer(session)
        return [
            answer(
                tune,
                files[tune.id],
                Surroundings(
                    ahead=ahead.get(tune.id, 0),
                    has_trainer=has_trainer,
                    thumbnail_urls=[self._blobs.presign_get(key) for key in keys[tune.id]],
                ),
            )
            for tune in tunes
        ]


async def _stop(session: AsyncSession, tune: Tune) -> None:
    """Cancel the tune at once if no trainer holds its lease; otherwise ask the trainer."""
    if tune.state not in LEASED:
        await transitions.cancel(session, tune.id, [])
    elif tune.cancel_requested_at is None:
        await repository.request_cancel(session, tune.id)


async def _own(session: AsyncSession, account_id: UUID, tune_id: str, *, lock: bool = False) -> Tune:
    tune = await repository.find_tune(session, account_id, tune_id, lock=lock)
    if tune is None:
        msg = f"tune_id: there is no tune {tune_id!r}"
        raise NotFoundError(msg)
    return tune
