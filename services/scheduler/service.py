"""Decisions about tunes: what is accepted, when one may run, how one ends."""

import secrets
from typing import get_args
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.answers import answer
from services.scheduler.checks import check
from services.scheduler.repository import PLATFORM_PREFIX, TuneFilter
from services.scheduler.schemas import MAX_SEED, OPTIONS, CreateTune, TuneAnswer, TuneList, WebhookEvent
from services.scheduler.settings import SchedulerSettings
from shared.accounts import names, quotas
from shared.blobs import rows as blob_rows
from shared.database.tables import Asset, Context, Tune, TuneFile
from shared.errors import ConflictError, NameTakenError, NotFoundError
from shared.ids import new_id
from shared.messaging import outbox
from shared.messaging.events import TuneCancelRequested, TuneDeleted, TuneQueued, TuneSucceeded
from shared.states import CANCELLABLE, LEASED, TuneState
from shared.tunes import transitions
from shared.tunes.transitions import about, move


class TuneService:
    """Every function works in its caller's transaction."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings

    async def create(self, session: AsyncSession, account_id: UUID, body: CreateTune) -> TuneAnswer:
        """Accept a tune.

        Raises LimitError for one tune too many, InvalidError for a field that is wrong, NameTakenError.
        """
        await quotas.admit_tune(session, account_id, self._settings)
        details = body.details
        base = (await check(session, account_id, body, private_webhooks=self._settings.webhook_allow_private)).base
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
            "trigger_word": details.trigger_words[0].strip(),
            "resize_images": bool(details.resize_images),
            "continue_on_rejection": bool(body.continue_on_rejection),
            "parameters": details.model_dump(mode="json", include=set(OPTIONS), exclude_none=True),
            "webhook": body.webhook,
            "webhook_events": (body.webhook_events_filter or list(get_args(WebhookEvent))) if body.webhook else [],
            "request": details.model_dump(mode="json"),
            "state": TuneState.WAITING_FILES,
            "max_attempts": self._settings.max_attempts,
        }
        # From here until the commit nobody collects the base: the row that refers to it is not visible yet.
        await blob_rows.pin(session, [str(base.blob_key)])
        if not await repository.insert_tune(session, row):
            msg = f"name: a tune named {body.name!r} exists already; choose another name, or delete that one first"
            raise NameTakenError(msg)
        session.add_all(
            TuneFile(
                tune_id=tune_id,
                position=position,
                asset_id=file.file_id,
                caption=(file.caption or "").strip() or details.trigger_words[0].strip(),
                verdict="pending",
            )
            for position, file in enumerate(details.files)
        )
        await session.flush()
        await self.settle(session, tune_id)
        return await self._answer(session, await self._lock(session, tune_id))

    async def settle(self, session: AsyncSession, tune_id: str) -> None:
        """Look at the files that a tune waits for, and queue or fail it once all have their verdict.

        Harmless at any time: what starts a tune is this look, and events only say when to look.
        """
        tune = await self._lock(session, tune_id)
        if tune.state != TuneState.WAITING_FILES:
            return
        waiting = False
        for file, asset in await repository.pending_files(session, tune_id):
            if asset is not None and asset.status == "ready" and asset.blob_key:
                await blob_rows.pin(session, [asset.blob_key])
                await repository.set_pinned(session, file, "ready", asset.blob_key)
            elif asset is not None and asset.status in {"ready_to_upload", "uploaded"}:
                waiting = True
            else:
                await repository.set_pinned(session, file, "rejected", None)
        now = await session.scalar(select(func.now()))
        age_s = (now - tune.created_at).total_seconds() if now else 0.0
        if waiting and age_s < self._settings.files_timeout_s:
            return
        may_go_on = tune.continue_on_rejection
        session.expire_all()
        files = (await repository.files_of(session, [tune_id]))[tune_id]
        ready = sum(file.verdict == "ready" for file in files)
        missing = [file.asset_id for file in files if file.verdict != "ready"]
        if not ready or (missing and not may_go_on):
            message = f"{len(missing)} of {len(files)} files cannot be trained on, the first is {missing[0]}"
            await transitions.fail(session, tune_id, [], code="files_rejected", message=message)
            return
        values = {"state": TuneState.QUEUED, "queued_at": func.now()}
        where = [Tune.state == TuneState.WAITING_FILES]
        await move(session, tune_id, where, values, lambda moved: TuneQueued(**about(moved)))

    async def get(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Return a tune. Raises NotFoundError."""
        return await self._answer(session, await _own(session, account_id, tune_id))

    async def has_ended(self, session: AsyncSession, account_id: UUID, tune_id: str) -> bool:
        """Say whether a tune will not change any more. Raises NotFoundError."""
        return repository.has_ended(await _own(session, account_id, tune_id))

    async def list(self, session: AsyncSession, account_id: UUID, wanted: TuneFilter, *, offset: int, limit: int) -> TuneList:
        """Return a page of tunes, newest first."""
        tunes, total = await repository.list_tunes(session, account_id, wanted, offset=offset, limit=limit)
        files = await repository.files_of(session, [tune.id for tune in tunes])
        data = [answer(tune, files[tune.id]) for tune in tunes]
        return TuneList(data=data, has_more=offset + len(data) < total, total=total)

    async def cancel(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Ask a tune to stop; again is fine. Raises ConflictError once it is trained or has ended otherwise."""
        tune = await _own(session, account_id, tune_id, lock=True)
        if tune.state != TuneState.CANCELLED:
            if tune.state not in CANCELLABLE:
                where = f"it is {tune.state}" if repository.has_ended(tune) else "its LoRA is being published"
                msg = f"the tune {tune_id} cannot be cancelled any more: {where}"
                raise ConflictError(msg)
            await self._stop(session, tune)
        return await self._answer(session, await self._lock(session, tune_id))

    async def delete(self, session: AsyncSession, account_id: UUID, tune_id: str) -> TuneAnswer:
        """Delete a tune, which cancels it if it still runs; its images and its LoRA stay."""
        tune = await _own(session, account_id, tune_id, lock=True)
        if tune.state in CANCELLABLE:
            await self._stop(session, tune)
        deleted = await move(session, tune_id, [], {"deleted_at": func.now()}, lambda moved: TuneDeleted(**about(moved)))
        assert deleted is not None  # noqa: S101 - locked above
        if repository.has_ended(deleted):
            await transitions.clear_up(session, deleted)
        return await self._answer(session, deleted)

    async def registered(self, session: AsyncSession, tune_id: str, asset: Asset) -> None:
        """End a tune whose LoRA has its verdict in the library; does nothing when it has ended already.

        A LoRA is registered ready: one that is deleted by now was there, and its tune succeeded all the same.
        """
        if asset.status in {"ready", "deleted"}:
            values = {
                "state": TuneState.SUCCEEDED,
                "lora_asset_id": asset.id,
                "succeeded_at": func.now(),
                "ended_at": func.now(),
            }
            where = [Tune.state == TuneState.PUBLISHING]
            done = await move(session, tune_id, where, values, lambda tune: TuneSucceeded(**about(tune), lora_asset_id=asset.id))
            if done:
                await transitions.clear_up(session, done)
            return
        reason = asset.status_details or f"its asset is {asset.status}"
        await self.not_registered(session, tune_id, reason)

    async def not_registered(self, session: AsyncSession, tune_id: str, reason: str) -> None:
        """End a tune whose LoRA the library refused."""
        message = f"the LoRA could not be put into the library: {reason}"
        await transitions.fail(
            session, tune_id, [Tune.state == TuneState.PUBLISHING], code="lora_not_registered", message=message
        )

    async def say_queued_again(self, session: AsyncSession) -> None:
        """Remind trainers of tunes that have stood in the queue for long; their state does not change."""
        for tune in await repository.stale_queued(session, self._settings.requeue_hint_s, limit=5):
            await outbox.publish(session, Context.TUNES, TuneQueued(**about(tune)))

    async def _stop(self, session: AsyncSession, tune: Tune) -> None:
        """Cancel at once what nobody trains; ask the trainer otherwise."""
        if tune.state not in LEASED:
            await transitions.cancel(session, tune.id, [])
        elif tune.cancel_requested_at is None:
            values = {"cancel_requested_at": func.now()}
            await move(session, tune.id, [], values, lambda moved: TuneCancelRequested(**about(moved)))

    async def _lock(self, session: AsyncSession, tune_id: str) -> Tune:
        tune = await repository.lock_tune(session, tune_id)
        if tune is None:
            msg = f"there is no tune {tune_id!r}"
            raise NotFoundError(msg)
        return tune

    async def _answer(self, session: AsyncSession, tune: Tune) -> TuneAnswer:
        return answer(tune, (await repository.files_of(session, [tune.id]))[tune.id])


async def _own(session: AsyncSession, account_id: UUID, tune_id: str, *, lock: bool = False) -> Tune:
    tune = await repository.find_tune(session, account_id, tune_id, lock=lock)
    if tune is None:
        msg = f"tune_id: there is no tune {tune_id!r}"
        raise NotFoundError(msg)
    return tune
