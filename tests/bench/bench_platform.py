"""What the outbox and the lease cost, compared with a bare producer and a bare UPDATE."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import func, insert, select, text, update

from shared.accounts import accounts
from shared.background import Background
from shared.blobs import rows as blob_rows
from shared.blobs.store import Stored
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Context, Tune
from shared.ids import new_id
from shared.messaging import cloudevents, outbox
from shared.messaging.events import AssetUploaded
from shared.messaging.relay import Relay
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings
from shared.tunes import leases
from tests.bench.conftest import Report
from tests.support.waiting import eventually

EVENTS = 300
IN_A_TRANSACTION = 50
CLAIMS = 50


@pytest.fixture
async def settings(make_settings: Callable[..., ServiceSettings]) -> ServiceSettings:
    settings = make_settings()
    await ensure_topics(settings)
    return settings


@pytest.fixture
async def database(settings: ServiceSettings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings, application_name="bench")
    yield database
    await database.close()


async def test_relay_against_a_bare_idempotent_producer(report: Report, database: Database, settings: ServiceSettings) -> None:
    events = [AssetUploaded(asset_id=new_id("asset"), account_id=str(uuid4()), version=2) for _ in range(EVENTS)]

    async def ours() -> int:
        for start in range(0, EVENTS, IN_A_TRANSACTION):
            async with database.begin() as session:
                await outbox.publish(session, Context.UPLOAD, *events[start : start + IN_A_TRANSACTION])

        async def empty() -> bool | None:
            async with database.begin() as session:
                return None if await session.scalar(select(func.count()).select_from(OUTBOXES[Context.UPLOAD])) else True

        await eventually(empty, 600)
        return EVENTS

    async def bare() -> int:
        for start in range(0, EVENTS, IN_A_TRANSACTION):
            acks = [
                await producer.send(
                    event.topic,
                    event.model_dump_json().encode(),
                    key=event.key.encode(),
                    headers=[(k, v.encode()) for k, v in cloudevents.headers(event, uuid4(), source="bench").items()],
                )
                for event in events[start : start + IN_A_TRANSACTION]
            ]
            await asyncio.gather(*acks)
        return EVENTS

    servers = settings.kafka_bootstrap_servers
    async with (
        AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all", linger_ms=5) as producer,
        Background() as background,
    ):
        background.run("relay", Relay(database, Context.UPLOAD, settings).run)
        await report.compare(
            f"events through outbox and relay, {IN_A_TRANSACTION} a transaction",
            ours,
            "events by a bare idempotent producer, without a database",
            bare,
        )


async def test_claim_against_a_bare_update(report: Report, database: Database) -> None:
    async with database.begin() as session:
        account_id = await accounts.create_account(session, "bench")
        await blob_rows.stage(session, Context.UPLOAD, "assets/base.tar")
        await blob_rows.commit(session, "assets/base.tar", Stored("ab" * 32, 1))

    async def queue() -> None:
        async with database.begin() as session:
            await session.execute(text("TRUNCATE tunes CASCADE"))
            await session.execute(insert(Tune), [queued(account_id) for _ in range(CLAIMS)])

    async def ours() -> int:
        await queue()
        for _ in range(CLAIMS):
            async with database.begin() as session:
                assert await leases.claim(session, trainer="t", token=uuid4(), lease_s=600, running_per_account=CLAIMS)
        return CLAIMS

    async def bare() -> int:
        await queue()
        head = select(Tune.id).where(Tune.state == "queued").order_by(Tune.queued_at).limit(1).with_for_update(skip_locked=True)
        for _ in range(CLAIMS):
            taken = {
                "state": "preparing",
                "lease_epoch": Tune.lease_epoch + 1,
                "lease_token": uuid4(),
                "lease_holder": "t",
                "lease_expires_at": func.now() + timedelta(seconds=600),
                "attempt": Tune.attempt + 1,
                "started_at": func.now(),
            }
            async with database.begin() as session:
                done = await session.execute(
                    update(Tune).where(Tune.id == head.scalar_subquery()).values(taken).returning(Tune.id)
                )
                assert done.scalar_one()
        return CLAIMS

    await report.compare(
        "claims: fair order, limit, epoch and events", ours, "claims by a bare UPDATE ... SKIP LOCKED of the oldest", bare
    )
    async with database.begin() as session:
        await session.execute(text("TRUNCATE outbox_tunes"))


def queued(account_id: UUID) -> dict[str, object]:
    tune_id = new_id("tune")
    return {
        "id": tune_id,
        "account_id": account_id,
        "name": tune_id,
        "base_asset_id": "asset_base",
        "base_name": "base",
        "engine": "image/stable-diffusion-v1-5",
        "base_blob_key": "assets/base.tar",
        "base_sha256": "ab" * 32,
        "shape_class": "sd15-stub",
        "native_size_px": 64,
        "steps": 10,
        "seed": 1,
        "trigger_word": "sks1",
        "request": {},
        "state": "queued",
        "queued_at": datetime.now(UTC),
    }
