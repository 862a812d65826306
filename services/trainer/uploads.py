"""What an attempt writes to the store: its checkpoints while it trains, its LoRA at the end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer.fence import patiently
from services.trainer.messages import CheckpointReport, SampleReport
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import UnavailableError
from shared.messaging.events import TuneSample
from shared.telemetry import get_logger
from shared.tunes import leases

log = get_logger(__name__)

_RETRY_S = 1.0


class Uploads:
    """Stores an attempt's files under its epoch and records them under its fence.

    A trainer that lost its lease may still store files there; it can never record them.
    """

    def __init__(self, tune_id: str, epoch: int, database: Database, blobs: Blobs, prompts: Sequence[str]) -> None:
        self._tune_id = tune_id
        self._prompts = prompts
        self._epoch = epoch
        self._database = database
        self._blobs = blobs
        self._waiting: tuple[int, Path] | None = None
        self._samples: deque[SampleReport] = deque()
        self._offered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def offer(self, report: CheckpointReport | SampleReport) -> None:
        """Have a checkpoint stored; one that still waits for its turn is passed over for it. Pictures come after it."""
        if isinstance(report, SampleReport):
            self._samples.append(report)
        else:
            if self._waiting:
                self._waiting[1].unlink(missing_ok=True)
            self._waiting = (report.step, Path(report.file))
        self._idle.clear()
        self._offered.set()

    async def stored(self) -> None:
        """Wait until every checkpoint and picture that was offered is recorded."""
        await self._idle.wait()

    async def run(self) -> NoReturn:
        """Store what is offered, one at a time, until cancelled. Raises LeaseLostError."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            while self._waiting or self._samples:
                if self._waiting:
                    step, file = self._waiting
                    self._waiting = None
                    await self._store_checkpoint(step, file)
                else:
                    await self._store_samples(self._samples.popleft())
            self._idle.set()

    async def store_lora(self, file: Path, *, also: Callable[[AsyncSession], Awaitable[object]]) -> None:
        """Store the LoRA and record the tune as trained: the point of no return.

        `also` is written in the same transaction, before. Raises LeaseLostError, and CancelRequestedError when a cancel came
        first.
        """
        key = f"tunes/{self._tune_id}/{self._epoch}/lora.safetensors"
        stored = await self._put(key, file)

        async def record(session: AsyncSession) -> None:
            await also(session)
            await leases.trained(
                session, self._tune_id, self._epoch, lora_key=key, sha256=stored.sha256, size_bytes=stored.size_bytes
            )
            await blob_rows.commit(session, key, stored)

        await patiently(self._database, record)

    async def _store_checkpoint(self, step: int, file: Path) -> None:
        key = f"tunes/{self._tune_id}/{self._epoch}/checkpoint-{step}.safetensors"
        stored = await self._put(key, file)

        async def record(session: AsyncSession) -> None:
            await leases.checkpointed(session, self._tune_id, self._epoch, step=step, key=key)
            # Last: repeated after a COMMIT that was cut off, the line above gives up the very blob that it recorded before.
            await blob_rows.commit(session, key, stored)

        await patiently(self._database, record)
        await asyncio.to_thread(file.unlink, missing_ok=True)

    async def _store_samples(self, drawn: SampleReport) -> None:
        prefix = f"tunes/{self._tune_id}/{self._epoch}/sample-{drawn.step}"
        samples = [
            TuneSample(number=number, prompt=self._prompts[number], seed=seed, key=f"{prefix}-{number}.png")
            for number, seed in enumerate(drawn.seeds)
        ]
        stored = {
            sample.key: await self._put(sample.key, Path(file), "image/png")
            for sample, file in zip(samples, drawn.files, strict=True)
        }

        async def record(session: AsyncSession) -> None:
            for key, blob in stored.items():
                await blob_rows.commit(session, key, blob)
            await leases.sampled(session, self._tune_id, self._epoch, step=drawn.step, samples=samples)

        await patiently(self._database, record)

    async def _put(self, key: str, file: Path, content_type: str = "application/octet-stream") -> Stored:
        await patiently(self._database, lambda session: blob_rows.stage(session, Context.TUNES, key, content_type=content_type))
        while True:
            try:
                return await self._blobs.put_file(key, file, content_type)
            except UnavailableError as error:
                log.warning("trainer.store_away", key=key, error=error.message)
            await asyncio.sleep(_RETRY_S)
