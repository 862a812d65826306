"""The work loop of an image worker: claim a request, draw it in a thread, and write the result under the claim."""

import asyncio
import contextlib
import functools
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from prometheus_client import Histogram
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Drawing, Result
from services.inference.worker import output, repository
from services.inference.worker.materials import Materials, Supplies
from services.inference.worker.progress import reported
from services.inference.worker.repository import Choice, Claim
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.steps import DrawCancelledError, OnStep
from services.inference.worker.watch import End, Watch
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.rounds import BadRowError, PassedOver
from shared.database.sessions import Database
from shared.errors import InvalidError, LeaseLostError, NotFoundError, TunesmithError, UnavailableError, public_reason
from shared.failures import is_unavailable
from shared.messaging.events import ImageRequested
from shared.telemetry import get_logger

if TYPE_CHECKING:
    from services.inference.worker.painter import Painter

log = get_logger(__name__)

_STOP_S = 15.0
_HINTS_KEPT = 200
_SERVED_KEPT = 200
_FAILED_KEPT = 50
_FAILURES = 2
"""Draws that fail in a row before the worker tests itself: one may be the request's fault."""
_FAILED_AFTER_POLLS = 5
"""How long a worker leaves a request that failed here to the others, in polls."""
_TEST_S = 60.0
_LAST_WORD_S = 5.0
_BROKEN = 70
"""The exit status of a worker whose device is broken or hangs: EX_SOFTWARE of sysexits.h."""

_SECONDS = Histogram(
    "tunesmith_generation_seconds",
    "Time of a generation by stage: in the queue, fetching its files, drawing, storing its images.",
    ["stage"],
    buckets=(0.1, 0.3, 1, 3, 10, 30, 60, 120, 300),
)


class Worker:
    """Draws one request at a time.

    An event on Kafka is only a hint that a request waits. It is acknowledged at once, even by a busy worker, so that no partition
    waits for a worker that draws. The worker claims rows, and an idle worker also polls for them.
    """

    def __init__(self, settings: WorkerSettings, database: Database, blobs: Blobs) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._supplies = Supplies(settings, blobs)
        # Only this thread imports torch and touches the loaded models.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._painter: Painter | None = None
        self._passed_over = PassedOver("worker.claim", database)
        self._hinted: deque[str] = deque(maxlen=_HINTS_KEPT)
        self._served: deque[UUID] = deque(maxlen=_SERVED_KEPT)
        self._failed_here: deque[str] = deque(maxlen=_FAILED_KEPT)
        self._failures = 0
        self._watch: Watch | None = None
        # A hung thread cannot be ended, and a CUDA context is not usable after some errors: only a new process helps.
        self._end_process: Callable[[int], object] = os._exit
        self._wake = asyncio.Event()
        self._stopping = threading.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def ready(self) -> None:
        """Raise unless requests can be taken."""
        if self._painter is None:
            msg = "still loading torch and diffusers"
            raise UnavailableError(msg)
        if self._failures >= _FAILURES:
            msg = f"{self._failures} draws in a row failed; the worker tests its device"
            raise UnavailableError(msg)

    async def hear(self, _session: AsyncSession, event: ImageRequested) -> None:
        """Remember a request whose models this worker has loaded or should load."""
        self._hinted.append(event.generation_id)
        self._wake.set()

    async def run(self) -> None:
        """Import torch and diffusers, which takes 20 seconds, then draw requests until stopped."""
        # After a restart of this task, such as after a database outage, the painter exists already.
        if self._painter is None:
            self._painter = await asyncio.get_running_loop().run_in_executor(self._thread, _make_painter, self._settings)
            log.info("worker.warm", device=str(self._painter.residency.device))
        while not self._stopping.is_set():
            self._wake.clear()
            # Busy before the claim: stop() must also wait for a claim that is made while it is called.
            self._idle.clear()
            try:
                held = await self._claim()
                if held is not None:
                    await self._work(held)
                if self._failures >= _FAILURES:
                    await self._test()
            except BadRowError as error:
                await self._pass_over(error)
                continue
            finally:
                self._idle.set()
            if held is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.poll_s)

    async def stop(self) -> None:
        """Give the current request back and end the loop."""
        self._stopping.set()
        self._wake.set()
        if self._watch is not None:
            self._watch.cancel(End.STOPPING)
        try:
            await asyncio.wait_for(self._idle.wait(), _STOP_S)
        except TimeoutError:
            log.warning("worker.stuck", after_s=_STOP_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _claim(self) -> Claim | None:
        settings, hinted = self._settings, list(self._hinted)
        choice = Choice(
            hinted=hinted,
            open_after_s=settings.poll_s,
            attempts=settings.generation_attempts,
            without=self._passed_over.keys(),
            failed=self._failed_here,
            failed_after_s=_FAILED_AFTER_POLLS * settings.poll_s,
            served=self._served,
        )
        async with self._database.begin() as session:
            held = await repository.claim(session, worker=self.name, token=uuid4(), claim_s=settings.claim_s, choice=choice)
        if held is not None:
            with contextlib.suppress(ValueError):
                self._served.remove(held.account_id)
            self._served.append(held.account_id)
        if held is None:
            # Other workers have claimed the hinted requests, or a later poll finds them.
            for _ in hinted:
                self._hinted.popleft()
        elif held.generation_id in self._hinted:
            self._hinted.remove(held.generation_id)
        return held

    async def _pass_over(self, error: BadRowError) -> None:
        await self._passed_over.add(error)
        try:
            async with self._database.begin() as session:
                await repository.count_failed_claim(session, error.key)
        except Exception as failure:  # noqa: BLE001 - a row that cannot be changed at all is an operator's task
            log.warning("generation.not_counted", generation_id=error.key, error=repr(failure))

    async def _work(self, held: Claim) -> None:
        watch = self._watch = Watch(self._settings.draw_timeout_s)
        if self._stopping.is_set():
            watch.cancel(End.STOPPING)
        guards = [asyncio.create_task(self._renew(held, watch)), asyncio.create_task(self._end_if_hung(held, watch))]
        try:
            await self._finish(held, watch)
        except LeaseLostError:
            log.warning("generation.claim_lost", generation_id=held.generation_id)
        except Exception:
            # The claim expires, and another worker takes the request.
            log.exception("generation.unfinished", generation_id=held.generation_id)
        finally:
            self._watch = None
            for guard in guards:
                guard.cancel()

    async def _finish(self, held: Claim, watch: Watch) -> None:
        _SECONDS.labels("wait").observe(held.waited_s)
        try:
            with _SECONDS.labels("fetch").time():
                materials = await self._supplies.fetch(held.inputs)
            async with reported(self._database, held, watch.on_step) as on_step:
                with _SECONDS.labels("draw").time(), watch.drawing():
                    drawing = await self._draw(held, materials, on_step)
            with _SECONDS.labels("store").time():
                images, stored = await output.store(self._database, self._blobs, held, drawing.images)
        except LeaseLostError:
            raise
        except Exception as error:  # noqa: BLE001 - each has its consequence
            await self._end_attempt(held, error, watch)
            return
        model_ms = round(drawing.model_s * 1000, 1)
        told = [*held.inputs.notices, *drawing.notices]
        result = Result(pictures=images, prediction_time_ms=model_ms, notices=told, versions=output.versions())
        async with self._database.begin() as session:
            await repository.succeed(session, held, result.model_dump(mode="json"))
            for key, blob in stored.items():
                await blob_rows.commit(session, key, blob)
            # The API reads them within minutes; the collector's grace period is longer.
            await blob_rows.orphan(session, *stored)
        log.info("generation.done", generation_id=held.generation_id, images=len(images), model_ms=model_ms)

    async def _draw(self, held: Claim, materials: Materials, on_step: OnStep) -> Drawing:
        assert self._painter is not None  # noqa: S101 - run() builds it before the first claim
        draw = functools.partial(self._painter.draw, held.inputs, materials, on_step)
        try:
            drawing = await asyncio.get_running_loop().run_in_executor(self._thread, draw)
        except (TunesmithError, DrawCancelledError):
            raise
        except Exception:
            self._failures += 1
            raise
        self._failures = 0
        return drawing

    async def _end_attempt(self, held: Claim, error: Exception, watch: Watch) -> None:
        """Fail the request, or queue it again for another attempt. Raises LeaseLostError if the claim is lost."""
        if watch.end is End.LOST:
            raise LeaseLostError(str(End.LOST)) from error
        if self._stopping.is_set():
            await self._give_back(held, count_attempt=False)
        elif isinstance(error, InvalidError | NotFoundError):
            loc = error.loc if isinstance(error, InvalidError) else ("body",)
            await self._fail(held, InvalidError.code, error.message, InvalidError.status, loc)
        elif is_unavailable(error) or (isinstance(error, TunesmithError) and error.retryable):
            log.warning("generation.postponed", generation_id=held.generation_id, error=repr(error))
            await self._give_back(held, count_attempt=True)
        else:
            log.error("generation.failed", generation_id=held.generation_id, attempt=held.attempt, exc_info=error)
            await self._end_failed_attempt(held, self._reason(error))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, DrawCancelledError):
            return f"drawing took longer than {self._settings.draw_timeout_s:.0f} s; ask for fewer images or steps"
        return f"{public_reason(error)}; send the request again"

    async def _end_failed_attempt(self, held: Claim, reason: str) -> None:
        if held.attempt < self._settings.generation_attempts:
            self._failed_here.append(held.generation_id)
            await self._give_back(held, count_attempt=True)
        else:
            await self._fail(held, "generation_failed", f"generation failed after {held.attempt} attempts: {reason}", 500)

    async def _test(self) -> None:
        """Test the device after several failures, and end the process if it does not compute."""
        log.warning("worker.testing", failures=self._failures)
        assert self._painter is not None  # noqa: S101 - it has drawn
        try:
            async with asyncio.timeout(_TEST_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._painter.test)
        except Exception:
            log.exception("worker.broken")
            self._stopping.set()
            self._end_process(_BROKEN)
        else:
            self._failures = 0

    async def _fail(self, held: Claim, code: str, message: str, status: int, loc: tuple[str | int, ...] = ("body",)) -> None:
        async with self._database.begin() as session:
            await repository.fail(session, held, code=code, message=message, status=status, loc=loc)

    async def _give_back(self, held: Claim, *, count_attempt: bool) -> None:
        async with self._database.begin() as session:
            await repository.give_back(session, held, count_attempt=count_attempt)

    async def _renew(self, held: Claim, watch: Watch) -> None:
        while True:
            await asyncio.sleep(self._settings.claim_s / 3)
            try:
                async with self._database.begin() as session:
                    await repository.renew(session, held, claim_s=self._settings.claim_s)
            except LeaseLostError:
                watch.cancel(End.LOST)
                return
            except Exception as error:  # noqa: BLE001 - the next renewal may still be in time
                log.warning("generation.renewal_failed", generation_id=held.generation_id, error=repr(error))

    async def _end_if_hung(self, held: Claim, watch: Watch) -> None:
        """End the process when its draw finishes no step for too long."""
        limit_s = self._settings.step_timeout_s
        while watch.silent_s <= limit_s:
            await asyncio.sleep(min(1.0, limit_s / 2))
        log.error("worker.hung", generation_id=held.generation_id, silent_s=round(watch.silent_s, 1))
        self._stopping.set()
        with contextlib.suppress(Exception):
            # Without this, the request waits until its claim expires.
            async with asyncio.timeout(_LAST_WORD_S):
                await self._end_failed_attempt(held, f"a step took longer than {limit_s:.0f} s; send the request again")
        self._end_process(_BROKEN)


def _make_painter(settings: WorkerSettings) -> "Painter":
    from services.inference.worker.painter import Painter  # noqa: PLC0415 - imports torch and diffusers

    painter = Painter.from_settings(settings)
    painter.test()
    return painter
