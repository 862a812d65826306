"""Whatever a record holds, it becomes a dead letter that says why, and the next record of its partition is handled (promise 9)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from sqlalchemy.ext.asyncio import AsyncSession

from shared.background import Background
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import LimitError, NotFoundError
from shared.messaging import cloudevents, relay
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetDeleted
from shared.messaging.outbox import MAX_BODY_BYTES
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX
from shared.settings import ServiceSettings
from tests.support.group_world import GroupWorld, group_world

WIDE = "\U0001f600".encode() * 1000


@dataclass(frozen=True)
class Hostile:
    """A record, what its handler raises, and what its dead letter says."""

    code: str
    body: bytes | None = None
    keeps_body: bool = True
    key: bytes | None = b"key"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    failure: Exception | None = None
    says: str = ""
    letter_headers: dict[str, str] = field(default_factory=dict)


HOSTILE = {
    "no body": Hostile("malformed", None, keeps_body=False),
    "no JSON": Hostile("malformed", b"\x00\xff{", says="the body does not fit asset.deleted"),
    "a large body": Hostile("malformed", b"x" * (MAX_BODY_BYTES + 1), letter_headers={"ts_cut": "body of 262145 bytes"}),
    "a body of nearly a megabyte": Hostile("malformed", b"x" * 1_000_000, letter_headers={"ts_cut": "body of 1000000 bytes"}),
    "a NUL in a header": Hostile(
        "not_found", headers=[("x", b"a\0b")], failure=NotFoundError("gone"), says="gone", letter_headers={"x": r"a\x00b"}
    ),
    "a NUL in a header's name": Hostile("malformed", b"", headers=[("a\0b", b"c")], letter_headers={r"a\x00b": "c"}),
    "a header that is not UTF-8": Hostile("malformed", b"", headers=[("x", b"\xff\xc3")], letter_headers={"x": r"\xff\xc3"}),
    "an id that is not UTF-8": Hostile("malformed", headers=[("ce_id", b"\xff\0")], says="ce_id"),
    "a type of another world": Hostile("malformed", headers=[("ce_type", b"\0")], says="ce_type"),
    "a long header": Hostile("malformed", b"", headers=[("x", b"y" * 300_000)], letter_headers={"x": "y" * 1000, "ts_cut": "x"}),
    "all that a letter keeps": Hostile(
        "malformed", b"x" * 300_000, key=WIDE, headers=[(f"{n:03}" + "\U0001f600" * 997, WIDE) for n in range(60)]
    ),
    "many headers": Hostile("malformed", b"", headers=[(f"x{n}", b"") for n in range(5000)]),
    "a key that is not UTF-8": Hostile("malformed", b"", key=b"\xff\0"),
    "no key": Hostile("malformed", b"", key=None),
    "no attempt number": Hostile(
        "malformed", headers=[("ts_attempt", b"x")], failure=LimitError("full"), says="'x', which is no"
    ),
    "a negative attempt": Hostile("malformed", headers=[("ts_attempt", b"-3")], failure=LimitError("full"), says="ts_attempt"),
    "a huge attempt": Hostile("malformed", headers=[("ts_attempt", b"9" * 9000)], failure=LimitError("full"), says="ts_attempt"),
    "an attempt with a NUL": Hostile(
        "malformed", headers=[("ts_attempt", b"1\0")], failure=LimitError("full"), says="ts_attempt"
    ),
    "too many attempts": Hostile(LimitError.code, headers=[("ts_attempt", b"6")], failure=LimitError("full"), says="after 6"),
    "another group's": Hostile("malformed", b"", headers=[("ts_group", b"\0nobody")]),
    "an error with a NUL": Hostile("ValueError", failure=ValueError("a\0b"), says=r"a\x00b"),
    "an error with a surrogate": Hostile("ValueError", failure=ValueError("\ud800"), says=r"\ud800"),
    "a long error": Hostile("ValueError", failure=ValueError("é" * 5000), says="ééé"),
    "an error of the disk": Hostile("FileNotFoundError", failure=FileNotFoundError(2, "no such file"), says="no such file"),
}


@pytest.fixture
async def world(database_url: str, make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[GroupWorld]:
    async with group_world(database_url, make_settings()) as world:
        yield world


async def test_hostile_records_become_dead_letters_and_block_nothing(
    world: GroupWorld, make_settings: Callable[..., ServiceSettings]
) -> None:
    settings = make_settings()
    sent: dict[str, tuple[Hostile, bytes]] = {}
    async with _letters(settings) as letters, world.replica():
        for hostile in HOSTILE.values():
            event = AssetDeleted(asset_id=uuid4().hex, account_id="acct_1", version=1)
            body = event.model_dump_json().encode() if hostile.body is None and hostile.keeps_body else hostile.body
            if hostile.failure:
                world.failures[event.asset_id] = hostile.failure
            source = await _send(settings, event, body, hostile.key, hostile.headers)
            sent[source] = hostile, (body or b"")[:MAX_BODY_BYTES]
        neighbour = world.event()
        await _send(settings, neighbour, neighbour.model_dump_json().encode(), b"key", [])
        await world.all_handled()
        found = await _letters_of(letters, world.group, set(sent))

    for source, (hostile, body) in sent.items():
        headers = {header: value.decode() for header, value in found[source].headers}
        assert (hostile, headers["ts_code"]) == (hostile, hostile.code)
        assert hostile.says in headers["ts_reason"]
        assert headers.items() >= hostile.letter_headers.items()
        assert found[source].value == body


class RawName(str):
    """A header's name whose bytes are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


async def test_a_record_that_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing(
    database_url: str, world: GroupWorld, make_settings: Callable[..., ServiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A topic of the test's own: every other group would meet the record, too.
    settings, own = make_settings(), f"test-{uuid4().hex}"
    handled: list[int] = []
    monkeypatch.setattr(relay, "NAMES", {*relay.NAMES, own + DEAD_LETTER_SUFFIX})

    class Own(AssetDeleted):
        topic = own

    async def handle(_session: AsyncSession, event: Own) -> None:
        handled.append(event.version)

    database = Database(database_url)
    consumers = Consumers(context=Context.UPLOAD, group=f"test-{uuid4().hex}", database=database, settings=settings)
    consumers.on(Own)(handle)
    await _create(settings, own, own + RETRY_SUFFIX, own + DEAD_LETTER_SUFFIX)
    async with _letters(settings, own) as letters, Background() as background:
        background.run("consumers", consumers.run)
        for version in range(1, 11):
            event = Own(asset_id="asset_1", account_id="acct_1", version=version)
            with monkeypatch.context() as patched:
                # The builder in Python, since the one in C takes only text.
                for module in ("producer", "message_accumulator"):
                    patched.setattr(f"aiokafka.producer.{module}.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
                name: Any = RawName("x") if version == 5 else "x"
                source = await _send(settings, event, event.model_dump_json().encode(), b"key", [(name, b"x")])
            if version == 5:
                unreadable = source
        found = await _letters_of(letters, consumers.group, {unreadable})
        async with asyncio.timeout(60):
            while len(handled) < 9:
                await asyncio.sleep(0.05)
    await database.close()

    headers = {header: value.decode() for header, value in found[unreadable].headers}
    assert headers["ts_code"] == "unreadable"
    assert "UnicodeDecodeError" in headers["ts_reason"]
    assert sorted(set(handled)) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


async def _send(
    settings: ServiceSettings, event: AssetDeleted, body: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
) -> str:
    """Put a record on the first partition, its headers over those of the event, and return where it is."""
    replaced = dict(headers)
    proper = {name: value.encode() for name, value in cloudevents.headers(event, uuid4(), source="test").items()}
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all") as producer:
        sent = await producer.send_and_wait(event.topic, body, key=key, headers=list((proper | replaced).items()), partition=0)
    return f"{event.topic}/0/{sent.offset}"


async def _create(settings: ServiceSettings, *topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    await admin.close()


async def _letters_of(letters: AIOKafkaConsumer, group: str, sources: set[str]) -> dict[str, Any]:
    """Return the group's letters of these records, when all have come."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(60):
        while found.keys() != sources:
            letter: Any = await letters.getone()
            headers = dict(letter.headers)
            if headers["ts_group"] == group.encode() and (source := headers["ts_source"].decode()) in sources:
                found[source] = letter
    return found


@asynccontextmanager
async def _letters(settings: ServiceSettings, topic: str = AssetDeleted.topic) -> AsyncIterator[AIOKafkaConsumer]:
    partition = TopicPartition(topic + DEAD_LETTER_SUFFIX, 0)
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_end(partition)
        yield consumer
