"""`tunesmith dlq`: what could not be handled, and what to do with it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from rich.console import Console
from rich.table import Table

from deploy.local import state
from deploy.local.paths import StackPaths, default_data_dir
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, TOPICS

T = TypeVar("T")
app = typer.Typer(help="Dead letters: events that could not be handled.", no_args_is_help=True)
Kafka = Annotated[
    str | None,
    typer.Option("--kafka", envvar="TUNESMITH_KAFKA_BOOTSTRAP_SERVERS", help="Brokers; without it, the local stack's."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]
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
        """How it is named on the command line."""
        return f"{self.topic}/{self.offset}"


@app.command("list")
def list_(kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """List the dead letters with their reasons, oldest first."""
    table = Table("letter", "type", "for", "code", "reason", "from", box=None)
    for letter in _run(_letters, kafka, data_dir):
        known = letter.headers
        cells = (known.get(key, "") for key in ("ce_type", "ts_group", "ts_code", "ts_reason", "ts_source"))
        table.add_row(letter.name, *cells)
    Console().print(table)


@app.command("replay")
def replay(
    names: Annotated[list[str], typer.Argument(help="Letters, as `list` names them.")],
    kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Hand letters to their consumer once more, after what was wrong is mended. They stay listed until dropped."""

    async def work(servers: str) -> list[str]:
        wanted = [letter for letter in await _letters(servers) if letter.name in names]
        async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True) as producer:
            for letter in wanted:
                # The retry topic, since only the consumer that failed should see it again.
                kept = {key: text for key, text in letter.headers.items() if key == "ts_group" or not key.startswith("ts_")}
                headers = [(key, text.encode()) for key, text in kept.items()]
                topic = letter.topic.removesuffix(DEAD_LETTER_SUFFIX) + RETRY_SUFFIX
                await producer.send_and_wait(topic, letter.record.value, key=letter.record.key, headers=headers)
        return [letter.name for letter in wanted]

    _report("replayed", names, _run(work, kafka, data_dir))


@app.command("drop")
def drop(
    name: Annotated[str, typer.Argument(help="A letter, as `list` names it; it and all before it in its topic go.")],
    kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Delete a letter and those before it: Kafka deletes from the beginning of a topic."""

    async def work(servers: str) -> list[str]:
        for letter in await _letters(servers):
            if letter.name == name:
                admin = AIOKafkaAdminClient(bootstrap_servers=servers)
                await admin.start()
                partition = TopicPartition(letter.topic, 0)
                await admin.delete_records({partition: RecordsToDelete(before_offset=letter.offset + 1)})
                await admin.close()
                return [name]
        return []

    _report("dropped", [name], _run(work, kafka, data_dir))


async def _letters(servers: str) -> list[Letter]:
    partitions = [TopicPartition(topic.name + DEAD_LETTER_SUFFIX, 0) for topic in TOPICS]
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Letter] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=_READ_MS)).values():
                for record in records:
                    headers = {key: value.decode(errors="replace") for key, value in record.headers}
                    found.append(Letter(record.topic, record.offset, headers, record))
        return found
    finally:
        await consumer.stop()


def _run(work: Callable[[str], Awaitable[T]], kafka: str | None, data_dir: Path | None) -> T:
    running = state.read(StackPaths((data_dir or default_data_dir()).resolve()))
    servers = kafka or (running.env["TUNESMITH_KAFKA_BOOTSTRAP_SERVERS"] if running else None)
    if servers is None:
        typer.echo("--kafka: not given, and no local stack runs", err=True)
        raise typer.Exit(1)

    async def inside() -> T:
        return await work(servers)

    return asyncio.run(inside())


def _report(done: str, asked: list[str], found: list[str]) -> None:
    for name in found:
        print(f"{done} {name}")
    if missing := sorted(set(asked) - set(found)):
        typer.echo(f"there is no letter {', '.join(missing)}", err=True)
        raise typer.Exit(1)
