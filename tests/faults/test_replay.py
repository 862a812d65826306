"""Replay is harmless (promise 4): republishing every topic twice, shuffled and under new event ids, changes no row."""

import asyncio
import random
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shared.messaging.topics import TOPICS
from shared.settings import ServiceSettings
from tests.support.stub_stack import StubStack
from tests.support.topic_reader import Message, messages
from tests.support.tunes import drawn, ended, start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)
GROUPS = {"upload": ("assets", "tunes"), "scheduler": ("assets",), "image-workers": ("images.requests",)}
TABLES = ("assets", "asset_names", "blobs", "tunes", "tune_files", "tune_events", "checkpoints", "generations")
_SETTLED = """
    SELECT NOT EXISTS (SELECT FROM outbox_upload) AND NOT EXISTS (SELECT FROM outbox_tunes)
        AND NOT EXISTS (SELECT FROM outbox_images) AND NOT EXISTS (SELECT FROM tunes WHERE ended_at IS NULL)
"""


def test_republishing_every_event_twice_and_shuffled_changes_no_row(stack: StubStack, client: Client, image: Asset) -> None:
    assert ended(client, start_tune(client, image, "replayed")).status == "succeeded"
    cancelled = start_tune(client, image, "replayed-cancelled", trigger_word="hold@3")
    client.cancel_tune(cancelled.id)
    assert ended(client, cancelled).status == "cancelled"
    assert until(lambda: drawn(client), "a image")
    until(lambda: stack.scalar(_SETTLED) or None, "nothing is under way")
    before = dump(stack)

    asyncio.run(replay(stack.settings(), random.Random(11)))

    until(lambda: stack.scalar(_SETTLED) or None, "what the replay may have started has ended")
    assert dump(stack) == before


def dump(stack: StubStack) -> dict[str, str]:
    """Return a digest of each table that events can change."""
    query = "SELECT coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM {} t"
    return {table: stack.scalar(query.format(table)) for table in TABLES}


async def replay(settings: ServiceSettings, drawn: random.Random) -> None:
    """Republish all that lies on the topics twice, and wait until every group has consumed it."""
    again: list[tuple[str, Message]] = []
    for topic in TOPICS:
        again += [(topic.name, message) for message in await messages(settings, topic.name)] * 2
    assert len(again) > 20
    drawn.shuffle(again)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all") as producer:
        for topic, message in again:
            # The inbox, which forgets in time, does not know the new id: the handler alone must see that nothing is to be done.
            headers = [(name, value.encode()) for name, value in (message.headers | {"ce_id": str(uuid4())}).items()]
            await producer.send_and_wait(
                topic, message.body, key=message.key.encode(), headers=headers, partition=message.partition
            )
    for group, topics in GROUPS.items():
        async with AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers, group_id=group, enable_auto_commit=False
        ) as watcher:
            partitions = [TopicPartition(t.name, number) for t in TOPICS if t.name in topics for number in range(t.partitions)]
            watcher.assign(partitions)
            async with asyncio.timeout(120):
                for partition, end in (await watcher.end_offsets(partitions)).items():
                    while end and (await watcher.committed(partition) or 0) < end:
                        await asyncio.sleep(0.1)
