"""A worker's life: claim a request, draw it in a thread, write what came of it under the claim."""

import asyncio
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Inputs, Picture, Result
from services.inference.worker import repository
from services.inference.worker.repository import Claim
from services.inference.worker.settings import WorkerSettings
from shared import blob_rows
from shared.blobs import Blobs, Stored
from shared.checkpoint_cache import CheckpointCache
from shared.db import Database
from shared.errors import InvalidError, LeaseLostError, NotFoundError, TunesmithError, UnavailableError
from shared.events import ImageRequested
from shared.tables import Context
from shared.telemetry import get_logger

if TYPE_CHECKING:
    from services.inference.worker.residency import Residency

log = get_logger(__name__)

_CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg"}
_STOP_S = 15.0


class Worker:
    """Draws one request at a time."""

    def __init__(self, settings: WorkerSettings, database: Database, blobs: Blobs) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._cache = CheckpointCache(settings.work_dir / "checkpoints", blobs, settings.checkpoint_cache_bytes)
        # torch is imported, and everything loaded is touched, on this one thread alone.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._residency: Residency | None = None
        self._free = asyncio.Event()
        self._stopping = threading.Event()
        self._job: asyncio.Task[None] | None = None
        self._affinity: dict[str, str] = {}

    async def warm_up(self) -> None:
        """Import what takes 20 seconds to import, then take requests."""
        self._residency = await asyncio.get_running_loop().run_in_executor(self._thread, _import_models, self._settings)
        log.info("worker.warm", device=str(self._residency.device))
        self._free.set()

    async def room(self) -> None:
        """Wait until a request can be drawn at once: the gate before a request is taken from the broker."""
        await self._free.wait()

    async def ready(self) -> None:
        """Raise unless requests can be taken."""
        if self._residency is None:
            msg = "still loading torch and diffusers"
            raise UnavailableError(msg)

    async def take(self, session: AsyncSession, fact: ImageRequested) -> None:
        """Claim the request and start drawing; the fact may be acknowledged as soon as the claim is committed."""
        held = await repository.claim(
            session, fact.generation_id, worker=self.name, token=uuid4(), claim_s=self._settings.claim_s
        )
        if held is None:
            return
        self._free.clear()
        self._affinity[held.generation_id] = fact.affinity
        self._job = asyncio.create_task(self._work(held), name=held.generation_id)

    async def stop(self) -> None:
        """Give the current request back and end."""
        self._stopping.set()
        self._free.clear()
        if self._job:
            await asyncio.wait([self._job], timeout=_STOP_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self, held: Claim) -> None:
        renewing = asyncio.create_task(self._renew(held))
        try:
            await self._finish(held)
        except LeaseLostError:
            log.warning("generation.claim_lost", generation_id=held.generation_id)
        except Exception:
            # The claim expires, and the request goes to another.
            log.exception("generation.unfinished", generation_id=held.generation_id)
        finally:
            renewing.cancel()
            del self._affinity[held.generation_id]
            if not self._stopping.is_set():
                self._free.set()

    async def _finish(self, held: Claim) -> None:
        began = time.monotonic()
        try:
            pictures, notices = await self._draw(held.inputs)
            stored = await self._store(held, pictures)
        except (InvalidError, NotFoundError) as error:
            await self._fail(held, error.code, error.message, 422)
            return
        except Exception as error:
            if self._stopping.is_set():
                await self._give_back(held, count_attempt=False)
            elif isinstance(error, TunesmithError) and error.retryable:
                await self._give_back(held, count_attempt=True)
            else:
                log.exception("generation.failed", generation_id=held.generation_id)
                await self._fail(held, "generation_failed", f"{type(error).__name__}: {error}", 500)
            return
        result = Result(
            pictures=[Picture(key=key, seed=seed) for key, seed in zip(stored, held.inputs.seeds, strict=True)],
            prediction_time_ms=round((time.monotonic() - began) * 1000, 1),
            notices=notices,
        )
        async with self._database.begin() as session:
            await repository.succeed(session, held, result.model_dump(mode="json"))
            for key, one in stored.items():
                await blob_rows.commit(session, key, one)
            # Answered from the store within minutes; the collector waits for longer than that.
            await blob_rows.orphan(session, *stored)
        log.info("generation.done", generation_id=held.generation_id, images=len(stored), ms=result.prediction_time_ms)

    async def _draw(self, inputs: Inputs) -> tuple[list[bytes], list[str]]:
        folder = await self._cache.fetch(inputs.base.blob_key, inputs.base.sha256)
        loras = [(lora.sha256, await self._lora_file(lora.blob_key, lora.sha256), lora.weight) for lora in inputs.loras]
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._draw_now, inputs, folder, loras)

    def _draw_now(self, inputs: Inputs, folder: Path, loras: list[tuple[str, Path, float]]) -> tuple[list[bytes], list[str]]:
        from services.inference.worker.drawing import draw  # noqa: PLC0415 - imports torch

        assert self._residency is not None  # noqa: S101 - nothing is taken before
        resident = self._residency.get(inputs.base.sha256, folder, loras)
        return draw(resident, inputs, self._stopping.is_set)

    async def _lora_file(self, key: str, sha256: str) -> Path:
        path = self._settings.work_dir / "loras" / f"{sha256}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = await self._blobs.get_file(key, path)
            if stored.sha256 != sha256:
                path.unlink()
                msg = f"the LoRA's bytes have sha256 {stored.sha256}, not {sha256}"
                raise InvalidError(msg)
        return path

    async def _store(self, held: Claim, pictures: list[bytes]) -> dict[str, Stored]:
        """Put the pictures into the store; their rows are committed with the result, or never."""
        encoding = held.inputs.image_encoding
        keys = [f"generations/{held.generation_id}/{held.epoch}/{number}.{encoding}" for number in range(len(pictures))]
        async with self._database.begin() as session:
            for key in keys:
                await blob_rows.stage(session, Context.IMAGES, key, content_type=_CONTENT_TYPES[encoding])
        return {
            key: await self._blobs.put_bytes(key, picture, _CONTENT_TYPES[encoding])
            for key, picture in zip(keys, pictures, strict=True)
        }

    async def _fail(self, held: Claim, code: str, message: str, status: int) -> None:
        async with self._database.begin() as session:
            await repository.fail(session, held, code=code, message=message, status=status)

    async def _give_back(self, held: Claim, *, count_attempt: bool) -> None:
        affinity = self._affinity[held.generation_id]
        async with self._database.begin() as session:
            await repository.give_back(session, held, affinity=affinity, count_attempt=count_attempt)

    async def _renew(self, held: Claim) -> None:
        while True:
            await asyncio.sleep(self._settings.claim_s / 3)
            try:
                async with self._database.begin() as session:
                    await repository.renew(session, held, claim_s=self._settings.claim_s)
            except LeaseLostError:
                return
            except Exception as error:  # noqa: BLE001 - the database may be back in time
                log.warning("generation.renewal_failed", generation_id=held.generation_id, error=repr(error))


def _import_models(settings: WorkerSettings) -> "Residency":
    import torch  # noqa: PLC0415 - takes seconds

    from services.inference.worker import drawing  # noqa: F401, PLC0415 - imports diffusers
    from services.inference.worker.residency import Residency  # noqa: PLC0415

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    wanted = settings.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return Residency(torch.device(wanted), checkpoints_kept=settings.resident_checkpoints, loras_kept=settings.resident_loras)
