"""Leases: the database gives a tune to one trainer at a time, and fences the writes of all others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import Reaper, Reconciler
from services.trainer.settings import TrainerSettings
from shared.accounts import accounts
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.tables import Blob, Context, Tune, TuneEvent
from shared.errors import ConflictError, LeaseLostError
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import leases
from shared.tunes.leases import CancelRequestedError, Claim, Lease
from tests.support.bad_rows import refuse_changes
from tests.support.trainer_world import TrainerWorld, make_world


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(TrainerSettings)
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


@pytest.fixture
def service(make_settings: Callable[..., SchedulerSettings], blobs: Blobs) -> TuneService:
    return TuneService(make_settings(SchedulerSettings), blobs)


async def claim(world: TrainerWorld, *, running_per_account: int = 100) -> Claim | None:
    async with world.database.begin() as session:
        return await leases.claim(
            session, trainer="trainer_a", token=uuid4(), lease_s=30, running_per_account=running_per_account
        )


async def claimed(world: TrainerWorld) -> Claim:
    found = await claim(world)
    assert found is not None
    return found


async def expire(world: TrainerWorld, tune_id: str) -> None:
    async with world.database.begin() as session:
        past = func.now() - text("interval '1 second'")
        await session.execute(update(Tune).where(Tune.id == tune_id).values(lease_expires_at=past))


async def checkpoint(world: TrainerWorld, held: Claim, step: int) -> str:
    key = f"tunes/{held.tune.id}/{held.lease.epoch}/checkpoint-{step}.safetensors"
    async with world.database.begin() as session:
        await blob_rows.stage(session, Context.TUNES, key)
    async with world.database.begin() as session:
        await leases.checkpointed(session, held.lease, step=step, key=key)
        await blob_rows.commit(session, key, Stored("ab" * 32, 1))
    return key


async def test_a_claim_raises_the_epoch_and_counts_an_attempt(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    assert held.lease == Lease(tune_id, 1)
    assert (held.tune.id, held.tune.attempt, held.tune.state) == (tune_id, 1, TuneState.PREPARING)
    assert [file.position for file in held.files] == [0, 1]
    assert held.resume is None
    assert await claim(world) is None


async def test_many_claims_at_once_never_share_a_tune(world: TrainerWorld) -> None:
    tunes = {await world.queue_tune() for _ in range(6)}
    found = await asyncio.gather(*(claim(world) for _ in range(9)))
    held = [one.tune.id for one in found if one]
    assert len(held) == len(set(held))
    assert set(held) == tunes


async def test_the_limit_of_an_account_holds_under_concurrent_claims(world: TrainerWorld) -> None:
    for _ in range(4):
        await world.queue_tune()
    found = await asyncio.gather(*(claim(world, running_per_account=2) for _ in range(4)))
    assert sum(one is not None for one in found) == 2


async def test_priority_goes_first_then_the_account_with_the_least_running_then_age(world: TrainerWorld) -> None:
    first = await world.queue_tune()
    second = await world.queue_tune()
    urgent = await world.queue_tune()
    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id == urgent).values(priority=5))
        world.account_id = await accounts.create_account(session, "somebody else")
    others = await world.queue_tune()
    order = [(await claimed(world)).tune.id for _ in range(4)]
    assert order == [urgent, others, first, second]


async def test_a_claim_is_found_again_by_its_token(world: TrainerWorld) -> None:
    tune_id, token = await world.queue_tune(), uuid4()
    async with world.database.begin() as session:
        await leases.claim(session, trainer="trainer_a", token=token, lease_s=30, running_per_account=1)
    async with world.database.begin() as session:
        found = await leases.find_claim(session, token)
        assert await leases.find_claim(session, uuid4()) is None
    assert found is not None
    assert (found.tune.id, len(found.files)) == (tune_id, 2)


async def test_every_write_of_an_older_epoch_is_refused_and_changes_nothing(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    old = await claimed(world)
    await expire(world, tune_id)
    async with world.database.begin() as session:
        assert await leases.reap(session) == [tune_id]
    new = await claimed(world)
    assert new.lease == Lease(tune_id, old.lease.epoch + 1)
    before = await world.tune(tune_id)
    key = f"tunes/{tune_id}/{old.lease.epoch}/lora.safetensors"
    async with world.database.begin() as session:
        await blob_rows.stage(session, Context.TUNES, key)
    writes = [
        lambda s: leases.renew(s, old.lease, lease_s=30),
        lambda s: leases.begin_training(s, old.lease, step=0),
        lambda s: leases.progress(s, old.lease, step=1, loss=0.1, steps_per_second=1.0, steps_run=1),
        lambda s: leases.checkpointed(s, old.lease, step=1, key=key),
        lambda s: leases.sampled(s, old.lease, step=1, samples=[]),
        lambda s: leases.trained(s, old.lease, lora_key=key, sha256="ab" * 32, size_bytes=1),
        lambda s: leases.fail(s, old.lease, code="internal", message="too late"),
        lambda s: leases.retry_later(s, old.lease, code="internal", message="too late"),
        lambda s: leases.cancelled(s, old.lease),
        lambda s: leases.release(s, old.lease),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError):
            async with world.database.begin() as session:
                await write(session)
    after = await world.tune(tune_id)
    assert (after.version, after.state, after.lease_epoch) == (before.version, before.state, before.lease_epoch)


async def test_preemption_gives_the_attempt_back_and_a_crash_does_not(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    async with world.database.begin() as session:
        await leases.release(session, held.lease)
    assert (await world.tune(tune_id)).attempt == 0
    await claimed(world)
    await expire(world, tune_id)
    async with world.database.begin() as session:
        await leases.reap(session)
    tune = await world.tune(tune_id)
    assert (tune.attempt, tune.state) == (1, TuneState.QUEUED)


async def test_a_lease_that_has_not_expired_is_not_reaped(world: TrainerWorld) -> None:
    await world.queue_tune()
    await claimed(world)
    async with world.database.begin() as session:
        assert await leases.reap(session) == []


async def test_a_lease_that_expires_in_the_last_attempt_fails_the_tune(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    for _ in range(3):
        await claimed(world)
        await expire(world, tune_id)
        async with world.database.begin() as session:
            await leases.reap(session)
    tune = await world.tune(tune_id)
    assert (tune.state, tune.error_code) == (TuneState.FAILED, "attempts_exhausted")
    assert tune.status_details == "the last attempt failed: trainer trainer_a stopped renewing its lease"


async def test_an_error_text_is_stored_with_the_characters_escaped_that_the_database_refuses(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    async with world.database.begin() as session:
        await leases.fail(session, held.lease, code="bad_image", message="NUL \0, undecodable \udcff, Grüße")
    assert (await world.tune(tune_id)).status_details == r"NUL \x00, undecodable \udcff, Grüße"


async def test_the_next_claim_resumes_from_the_last_checkpoint_and_only_the_last_two_are_kept(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    keys = [await checkpoint(world, held, step) for step in (2, 4, 6)]
    async with world.database.begin() as session:
        await leases.release(session, held.lease)
    resumed = await claimed(world)
    assert resumed.resume is not None
    assert (resumed.resume.step, resumed.resume.blob_key, resumed.tune.step) == (6, keys[-1], 6)
    async with world.database.begin() as session:
        states = dict((await session.execute(select(Blob.key, Blob.state).where(Blob.key.in_(keys)))).all())
    assert [states[key] for key in keys] == ["orphaned", "committed", "committed"]


async def test_a_checkpoint_recorded_twice_is_still_the_one_to_resume_from(world: TrainerWorld) -> None:
    await world.queue_tune()
    held = await claimed(world)
    key = await checkpoint(world, held, 4)
    async with world.database.begin() as session:
        await leases.checkpointed(session, held.lease, step=4, key=key)
        await blob_rows.commit(session, key, Stored("ab" * 32, 1))
    async with world.database.begin() as session:
        await leases.release(session, held.lease)
    resumed = await claimed(world)
    assert resumed.resume is not None
    assert resumed.resume.blob_key == key


@pytest.mark.parametrize("round_", range(10))
async def test_a_cancel_and_a_completion_at_once_have_one_winner(world: TrainerWorld, round_: int) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    key = f"tunes/{tune_id}/1/lora.safetensors"
    async with world.database.begin() as session:
        await leases.begin_training(session, held.lease, step=0)
        await blob_rows.stage(session, Context.TUNES, key)

    async def complete() -> bool:
        try:
            async with world.database.begin() as session:
                await leases.trained(session, held.lease, lora_key=key, sha256="ab" * 32, size_bytes=1)
        except CancelRequestedError:
            async with world.database.begin() as session:
                await leases.cancelled(session, held.lease)
            return False
        return True

    async def request_cancel() -> bool:
        async with world.database.begin() as session:
            requested = await session.execute(
                update(Tune)
                .where(Tune.id == tune_id, Tune.state.in_([TuneState.PREPARING, TuneState.TRAINING]))
                .values(cancel_requested_at=func.now())
                .returning(Tune.id)
            )
            return requested.one_or_none() is not None

    both = [complete(), request_cancel()] if round_ % 2 else [request_cancel(), complete()]
    winners = await asyncio.gather(*both)
    tune = await world.tune(tune_id)
    assert sorted(winners) == [False, True]
    assert tune.state in (TuneState.PUBLISHING, TuneState.CANCELLED)
    events = await world.event_types(tune_id)
    assert len([kind for kind in events if kind in {"tune.trained", "tune.cancelled"}]) == 1


async def request_cancel(world: TrainerWorld, service: TuneService, tune_id: str) -> None:
    async with world.database.begin() as session:
        await service.cancel(session, world.account_id, tune_id)


ENDS: dict[str, Callable[[AsyncSession, Lease], Awaitable[object]]] = {
    "release": leases.release,
    "retry": lambda session, lease: leases.retry_later(session, lease, code="internal", message="a broken pipe"),
    "failure": lambda session, lease: leases.fail(session, lease, code="internal", message="a broken pipe"),
}


@pytest.mark.parametrize("last_attempt", [False, True])
@pytest.mark.parametrize("end", ENDS)
async def test_an_accepted_cancel_wins_over_every_other_end_of_the_attempt(
    world: TrainerWorld, service: TuneService, end: str, *, last_attempt: bool
) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    if last_attempt:
        async with world.database.begin() as session:
            await session.execute(update(Tune).values(max_attempts=1))
    await request_cancel(world, service, tune_id)

    async with world.database.begin() as session:
        await ENDS[end](session, held.lease)

    assert (await world.tune(tune_id)).state == TuneState.CANCELLED
    assert (await world.event_types(tune_id))[-2:] == ["tune.cancel_requested", "tune.cancelled"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("round_", range(4))
async def test_a_cancel_during_the_end_of_the_attempt_is_not_lost(
    world: TrainerWorld, service: TuneService, end: str, round_: int
) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)

    async def leave() -> None:
        async with world.database.begin() as session:
            await ENDS[end](session, held.lease)

    async def cancel() -> bool:
        try:
            await request_cancel(world, service, tune_id)
        except ConflictError:
            return False
        return True

    both = [leave(), cancel()] if round_ % 2 else [cancel(), leave()]
    accepted = any(await asyncio.gather(*both))

    assert (await world.tune(tune_id)).state == (TuneState.CANCELLED if accepted else TuneState.FAILED)


async def test_a_tune_that_was_queued_with_its_cancel_is_cancelled_and_not_claimed(
    world: TrainerWorld, service: TuneService
) -> None:
    tune_id = await world.queue_tune()
    async with world.database.begin() as session:
        await session.execute(update(Tune).values(cancel_requested_at=func.now()))
    assert await claim(world) is None

    await Reconciler(world.database, service).run_once()

    assert (await world.tune(tune_id)).state == TuneState.CANCELLED


async def test_an_expired_lease_that_cannot_be_ended_leaves_no_other_unended(world: TrainerWorld, service: TuneService) -> None:
    tunes = [await world.queue_tune() for _ in range(3)]
    for tune_id in tunes:
        await claimed(world)
        await expire(world, tune_id)
    await refuse_changes(world.database, "tunes", tunes[0])
    now_s = 0.0
    reaper = Reaper(world.database, lease_s=30.0, clock=lambda: now_s)
    await reaper.run_once()
    now_s = 31.0

    assert await reaper.run_once() == tunes[1:]


async def test_events_have_no_gap_and_end_at_the_tunes_version(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    held = await claimed(world)
    async with world.database.begin() as session:
        await leases.begin_training(session, held.lease, step=0)

    async def report(step: int) -> None:
        async with world.database.begin() as session:
            await leases.progress(session, held.lease, step=step, loss=None, steps_per_second=None, steps_run=1)

    await asyncio.gather(*(report(step) for step in range(1, 9)))
    async with world.database.begin() as session:
        sequences = list(await session.scalars(select(TuneEvent.sequence).order_by(TuneEvent.sequence)))
    tune = await world.tune(tune_id)
    assert sequences == list(range(1, tune.version + 1))
    assert tune.steps_run == 8
