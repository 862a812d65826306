"""What an attempt writes to the store: checkpoints and validation images while it trains, the LoRA at the end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer.engine.reports import CheckpointReport, SampleReport
from services.trainer.fence import write_when_available
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.failures import retry_while_unavailable
from shared.messaging.events import TuneSample
from shared.tunes import leases
from shared.tunes.leases import Lease


class Uploads:
    """Stores an attempt's files below its epoch's own prefix, and records them under its lease.

    A trainer that has lost its lease may still store files there, but can never record them.
    """

    def __init__(self, lease: Lease, prompts: Sequence[str], database: Database, blobs: Blobs) -> None:
        self._lease = lease
        self._prompts = prompts
        self._database = database
        self._blobs = blobs
        self._prefix = f"tunes/{lease.tune_id}/{lease.epoch}"
        self._checkpoint: CheckpointReport | None = None
        self._samples: deque[SampleReport] = deque()
        self._offered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def offer(self, report: CheckpointReport | SampleReport) -> None:
        """Have the files of a report stored: checkpoints before images, and of waiting checkpoints the latest only."""
        match report:
            case SampleReport():
                self._samples.append(report)
            case CheckpointReport():
                if self._checkpoint:
                    Path(self._checkpoint.file).unlink(missing_ok=True)
                self._checkpoint = report
        self._idle.clear()
        self._offered.set()

    async def until_stored(self) -> None:
        """Wait until all that was offered is recorded."""
        await self._idle.wait()

    async def run(self) -> NoReturn:
        """Store what is offered, one report at a time, until cancelled. Raises LeaseLostError."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            while self._checkpoint or self._samples:
                if self._checkpoint:
                    report, self._checkpoint = self._checkpoint, None
                    await self._store_checkpoint(report)
                else:
                    await self._store_samples(self._samples.popleft())
            self._idle.set()

    async def store_lora(self, file: Path, *, also: Callable[[AsyncSession], Awaitable[object]]) -> None:
        """Store the LoRA and record the tune as trained; after this the tune cannot be cancelled.

        The same transaction writes `also` first. Raises LeaseLostError, and CancelRequestedError when a cancel was requested
        first.
        """
        key = f"{self._prefix}/lora.safetensors"
        stored = await self._put(key, file)

        async def record(session: AsyncSession) -> None:
            await also(session)
            await leases.trained(session, self._lease, lora_key=key, sha256=stored.sha256, size_bytes=stored.size_bytes)
            await blob_rows.commit(session, key, stored)

        await write_when_available(self._database, record)

    async def _store_checkpoint(self, report: CheckpointReport) -> None:
        key, file = f"{self._prefix}/checkpoint-{report.step}.safetensors", Path(report.file)
        stored = await self._put(key, file)

        async def record(session: AsyncSession) -> None:
            await leases.checkpointed(session, self._lease, step=report.step, key=key)
            # This comes last: when `record` is repeated after a COMMIT without an answer, `checkpointed` gives up the blob
            # that it recorded the first time, which is this one.
            await blob_rows.commit(session, key, stored)

        await write_when_available(self._database, record)
        await asyncio.to_thread(file.unlink, missing_ok=True)

    async def _store_samples(self, report: SampleReport) -> None:
        samples = [
            TuneSample(
                number=number, prompt=self._prompts[number], seed=seed, key=f"{self._prefix}/sample-{report.step}-{number}.png"
            )
            for number, seed in enumerate(report.seeds)
        ]
        stored = {
            sample.key: await self._put(sample.key, Path(file), "image/png")
            for sample, file in zip(samples, report.files, strict=True)
        }

        async def record(session: AsyncSession) -> None:
            for key, blob in stored.items():
                await blob_rows.commit(session, key, blob)
            await leases.sampled(session, self._lease, step=report.step, samples=samples)

        await write_when_available(self._database, record)

    async def _put(self, key: str, file: Path, content_type: str = "application/octet-stream") -> Stored:
        def stage(session: AsyncSession) -> Awaitable[None]:
            return blob_rows.stage(session, Context.TUNES, key, content_type=content_type)

        await write_when_available(self._database, stage)
        return await retry_while_unavailable(
            lambda: self._blobs.put_file(key, file, content_type), log_event="trainer.store_unavailable", key=key
        )
