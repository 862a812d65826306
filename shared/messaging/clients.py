"""How Kafka's clients are started, checked and ended, so that none keeps a connection or a membership, or blocks the process."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient

from shared import tls
from shared.errors import UnavailableError
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

_START_GRACE_S = 2.0
_ABORT_S = 2.0


def connection(settings: ServiceSettings) -> dict[str, Any]:
    """Return the arguments with which each of aiokafka's clients reaches the broker: address, TLS and sign-in."""
    arguments: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap_servers}
    if settings.kafka_tls:
        arguments["ssl_context"] = tls.verified(settings.kafka_ca_file)
    if settings.kafka_sasl_mechanism:
        arguments |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    transport = "SSL" if settings.kafka_tls else "PLAINTEXT"
    return arguments | {"security_protocol": f"SASL_{transport}" if settings.kafka_sasl_mechanism else transport}


async def start_whole(starting: Coroutine[Any, Any, object]) -> None:
    """Await a client's start; when cancelled, let the start end first, for at most two seconds.

    aiokafka 0.14 closes no connection whose opening was cut off: it stays open until the garbage collector finds it.
    """
    task = asyncio.create_task(starting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await end_within(_START_GRACE_S, task)
        raise


async def end_within(timeout_s: float, ending: Awaitable[object]) -> None:
    """Await the end of a client that is discarded, for at most `timeout_s` seconds; ignore its errors.

    It runs as a task of its own: aiokafka's `stop()` may raise CancelledError when the broker is unavailable, which would look
    like the caller's own cancellation.
    """
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def check_topics(consumer: AIOKafkaConsumer, topics: Iterable[str], timeout_s: float) -> None:
    """Raise UnavailableError unless the broker answers on the consumer's own connections and has the topics.

    aiokafka raises nothing when the broker is unavailable: the consumer only waits. A broker without the topics lost its data.
    """
    try:
        async with asyncio.timeout(timeout_s):
            has_answered = await _client(consumer).force_metadata_update()
    except TimeoutError as error:
        msg = f"Kafka did not answer within {timeout_s:.0f} s"
        raise UnavailableError(msg) from error
    if not has_answered:
        raise UnavailableError("Kafka does not answer")
    if missing := sorted(topic for topic in topics if not consumer.partitions_for_topic(topic)):
        msg = f"Kafka lost the topics {', '.join(missing)}"
        raise UnavailableError(msg)


async def end_consumer(consumer: AIOKafkaConsumer, timeout_s: float) -> bool:
    """Leave the group, end all of the consumer's tasks and connections, and return whether they have ended.

    Tasks that do not end by themselves within `timeout_s` seconds are cancelled. A heartbeat that outlived its consumer would
    keep the partitions for a member that handles nothing.
    """
    await end_within(timeout_s, consumer.stop())
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001 - aiokafka has no way to end without an answer
    tasks = [
        getattr(coordinator, "_coordination_task", None),
        getattr(coordinator, "_heartbeat_task", None),
        getattr(coordinator, "_commit_refresh_task", None),
        getattr(fetcher, "_fetch_task", None),
        *getattr(fetcher, "_pending_tasks", ()),
    ]
    return await abort_client(_client(consumer), *(task for task in tasks if task is not None))


async def abort_client(client: AIOKafkaClient, *tasks: asyncio.Task[object]) -> bool:
    """Cancel the tasks and the client's own, reset its connections, and return whether all tasks have ended."""
    running = [task for task in (*tasks, client._sync_task) if task is not None and not task.done()]  # noqa: SLF001 - as above
    for task in running:
        task.cancel()
    for connection in client._conns.values():  # noqa: SLF001 - as above
        writer = connection._writer  # noqa: SLF001 - as above
        # `close` alone waits until the buffered bytes have been sent.
        if writer is not None:
            writer.transport.abort()
        connection.close()
    if not running:
        return True
    _, late = await asyncio.wait(running, timeout=_ABORT_S)
    return not late


def end_process(reason: str) -> None:
    """Stop this process with SIGTERM; its supervisor starts it again.

    For a client or a handler that cannot be ended: a restart is better than a second one beside it.
    """
    log.critical("process.ends", reason=reason)
    os.kill(os.getpid(), signal.SIGTERM)


def _client(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    return consumer._client  # noqa: SLF001 - aiokafka has no public way to its connections
