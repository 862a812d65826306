"""`tunesmith dlq`: list, replay and drop dead letters."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from rich.console import Console
from rich.table import Table

from deploy.local.commands.options import DataDir, address, fail
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, TOPICS

T = TypeVar("T")
app = typer.Typer(help="Dead letters: events that a service could not handle.", no_args_is_help=True, add_completion=False)
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        envvar="TUNESMITH_KAFKA_BOOTSTRAP_SERVERS",
        help="Brokers as HOST:PORT, separated by commas. Default: the running local stack's broker.",
    ),
]
_READ_MS = 2000


@dataclass(frozen=True)
class Letter:
    """A dead letter, named by its topic and offset."""

    topic: str
    offset: int
    headers: dict[str, str]
    record: ConsumerRecord[bytes, bytes]

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return f"{self.topic}/{self.offset}"


@app.command("list")
def list_(kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """List the dead letters and why each could not be handled, oldest first."""
    table = Table("letter", "type", "for", "code", "reason", "from", box=None)
    for letter in _run(_letters, kafka, data_dir):
        known = letter.headers
        cells = (known.get(key, "") for key in ("ce_type", "ts_group", "ts_code", "ts_reason", "ts_source"))
        table.add_row(letter.name, *cells)
    Console().print(table)


@app.command("replay")
def replay(
    names: Annotated[list[str], typer.Argument(help="Letters, by the names that `tunesmith dlq list` shows.")],
    kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Give letters to their consumer again, once the cause is mended. They stay in the list until they are dropped."""

    async def work(servers: str) -> list[str]:
        wanted = [letter for letter in await _letters(servers) if letter.name in names]
        # aiokafka annotates no parameters.
        producer: Any = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
        async with _started(producer.start, producer.stop):
            for letter in wanted:
                # The retry topic reaches only the consumer that failed; others have handled the event.
                kept = {key: text for key, text in letter.headers.items() if key == "ts_group" or not key.startswith("ts_")}
                headers = [(key, text.encode()) for key, text in kept.items()]
                topic = letter.topic.removesuffix(DEAD_LETTER_SUFFIX) + RETRY_SUFFIX
                await producer.send_and_wait(topic, letter.record.value, key=letter.record.key, headers=headers)
        return [letter.name for letter in wanted]

    _report("replayed", names, _run(work, kafka, data_dir))


@app.command("drop")
def drop(
    name: Annotated[str, typer.Argument(help="The newest letter to drop, by the name that `tunesmith dlq list` shows.")],
    kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Delete a letter and every older letter of its topic. Kafka deletes from the beginning of a topic only."""

    async def work(servers: str) -> list[str]:
        for letter in await _letters(servers):
            if letter.name == name:
                admin = AIOKafkaAdminClient(bootstrap_servers=servers)
                async with _started(admin.start, admin.close):
                    partition = TopicPartition(letter.topic, 0)
                    await admin.delete_records({partition: RecordsToDelete(before_offset=letter.offset + 1)})
                return [name]
        return []

    _report("dropped", [name], _run(work, kafka, data_dir))


async def _letters(servers: str) -> list[Letter]:
    partitions = [TopicPartition(topic.name + DEAD_LETTER_SUFFIX, 0) for topic in TOPICS]
    # aiokafka annotates no parameters.
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    async with _started(consumer.start, consumer.stop):
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        found: list[Letter] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            batch: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = await consumer.getmany(timeout_ms=_READ_MS)
            for record in (record for records in batch.values() for record in records):
                headers = {key: value.decode(errors="replace") for key, value in record.headers}
                found.append(Letter(record.topic, record.offset, headers, record))
        return found


@asynccontextmanager
async def _started(start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Run a client of Kafka. It is stopped also when it could not start: else it complains when it is collected."""
    try:
        await start()
        yield
    finally:
        await stop()


def _run(work: Callable[[str], Awaitable[T]], kafka: str | None, data_dir: Path | None) -> T:
    servers = address("--kafka", kafka, "TUNESMITH_KAFKA_BOOTSTRAP_SERVERS", data_dir)

    async def inside() -> T:
        return await work(servers)

    # aiokafka logs each attempt to connect. The command says once what came of them.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(inside())
    except UnknownTopicOrPartitionError:
        fail(f"Kafka at {servers} lacks the topics of the dead letters: start the services, which make them")
    except (KafkaError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        fail(f"Kafka at {servers} cannot be reached ({reason}): check the address, and that the broker runs")


def _report(done: str, asked: list[str], found: list[str]) -> None:
    for name in found:
        print(f"{done} {name}")
    if missing := sorted(set(asked) - set(found)):
        fail(f"there is no dead letter {', '.join(missing)}: `tunesmith dlq list` shows the names")
