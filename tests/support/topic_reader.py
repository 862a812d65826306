"""Reads all that lies on a topic, from its beginning and without a consumer group."""

from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from shared.messaging import cloudevents
from shared.messaging.topics import TOPICS
from shared.settings import ServiceSettings


@dataclass(frozen=True)
class Message:
    """A message of a topic."""

    partition: int
    key: str
    headers: dict[str, str]
    body: bytes


async def messages(settings: ServiceSettings, topic: str) -> list[Message]:
    """Return all messages of the topic, in the order of each partition."""
    found: list[Message] = []
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest") as consumer:
        [known] = [known for known in TOPICS if known.name == topic]
        partitions = [TopicPartition(topic, number) for number in range(known.partitions)]
        consumer.assign(partitions)
        try:
            ends = await consumer.end_offsets(partitions)
        except KafkaTimeoutError as error:
            # aiokafka retries in silence, and its error does not say for what.
            cluster = consumer._client.cluster
            leaders = {partition.partition: cluster.leader_for_partition(partition) for partition in partitions}
            pytest.fail(f"{error!r}: {topic}'s leaders by partition are {leaders}; the brokers are {cluster.brokers()}")
        await consumer.seek_to_beginning(*partitions)
        waiting = {partition for partition in partitions if ends[partition] > await consumer.position(partition)}
        while waiting:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                found += [
                    Message(
                        record.partition,
                        (record.key or b"").decode(),
                        cloudevents.decode_headers(record.headers),
                        record.value or b"",
                    )
                    for record in records
                ]
                if await consumer.position(partition) >= ends[partition]:
                    waiting.discard(partition)
    return found
