"""Every topic: its name, partitions and retention. The services create them; the broker creates none by itself."""

import asyncio
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from shared.errors import UnavailableError
from shared.messaging.clients import abort_client, connection, end_within, start_whole
from shared.settings import ServiceSettings

_DAY_MS = 24 * 3600 * 1000
_TIMEOUT_S = 10.0
_CLOSE_S = 2.0
_TOPIC_ALREADY_EXISTS = 36
RETRY_SUFFIX = ".retry"
DEAD_LETTER_SUFFIX = ".dlq"


@dataclass(frozen=True)
class Topic:
    """A topic of events. Each has two more, with the suffixes `.retry` and `.dlq`."""

    name: str
    partitions: int
    retention_ms: int


TOPICS = (
    Topic("assets", partitions=6, retention_ms=7 * _DAY_MS),
    Topic("tunes", partitions=6, retention_ms=7 * _DAY_MS),
    Topic("images.requests", partitions=12, retention_ms=_DAY_MS),
    Topic("images.results", partitions=6, retention_ms=_DAY_MS),
)
_ALL = {
    topic.name + suffix: (topic.partitions if not suffix else 1, days * _DAY_MS if suffix else topic.retention_ms)
    for topic in TOPICS
    for suffix, days in (("", 0), (RETRY_SUFFIX, 7), (DEAD_LETTER_SUFFIX, 30))
}
NAMES = frozenset(_ALL)
"""The names of all topics, those of retries and dead letters included."""


async def ensure_topics(settings: ServiceSettings) -> list[str]:
    """Create the topics that are missing, and return their names.

    Call it once for each connection: it opens one of its own. Raises UnavailableError when the broker does not answer.
    """
    bootstrap_servers = settings.kafka_bootstrap_servers
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=int(_TIMEOUT_S * 1000))
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await start_whole(admin.start())
            missing = sorted(_ALL.keys() - set(await admin.list_topics()))
            new = [
                NewTopic(
                    name,
                    _ALL[name][0],
                    settings.kafka_replication_factor,
                    topic_configs={"retention.ms": str(_ALL[name][1])},
                )
                for name in missing
            ]
            answer = await admin.create_topics(new) if new else None
    except (KafkaError, OSError, TimeoutError) as error:
        msg = f"Kafka at {bootstrap_servers} does not answer: {error!r}"
        raise UnavailableError(msg, headers={"Retry-After": "2"}) from error
    finally:
        await end_within(_CLOSE_S, admin.close())
        await abort_client(admin._client)  # noqa: SLF001 - aiokafka has no public way to its connections
    for name, code, *text in getattr(answer, "topic_errors", ()):
        # Another process may have created it since they were listed.
        if code not in {0, _TOPIC_ALREADY_EXISTS}:
            msg = f"Kafka refused to create the topic {name}: {for_code(code).__name__} {text}"
            raise UnavailableError(msg)
    return missing
