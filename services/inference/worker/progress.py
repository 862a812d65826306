"""Reports how far a request is, and ends its draw when the claim is lost: by a cancel, a delete, or another worker.

The progress is a row of an unlogged table, and a notification says that it changed. A notification alone could carry a preview,
but then a page that is opened later would show nothing until the next one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from services.inference.worker import repository
from services.inference.worker.previews import preview
from services.inference.worker.repository import Claim
from services.inference.worker.steps import OnStep
from shared.database.sessions import Database
from shared.errors import LeaseLostError
from shared.telemetry import get_logger

log = get_logger(__name__)

_EVERY_S = 0.5


@asynccontextmanager
async def reported(database: Database, held: Claim, on_step: OnStep) -> AsyncGenerator[OnStep]:
    """Report the progress of a draw during the block. Yields the hook of the draw, which also calls `on_step`."""
    if not held.inputs.with_previews:
        # Nothing watches or cancels a request of `/generate`.
        yield on_step
        return
    reporter = _Reporter(database, held, on_step)
    reporting = asyncio.create_task(reporter.run())
    try:
        yield reporter.did
    finally:
        reporting.cancel()


class _Reporter:
    """`did` runs in the thread that draws, `run` in the event loop."""

    def __init__(self, database: Database, held: Claim, on_step: OnStep) -> None:
        self._database = database
        self._held = held
        self._on_step = on_step
        self._lost: LeaseLostError | None = None
        self._previewed_at = -_EVERY_S
        self._now: tuple[int, int, bytes | None] = (0, 0, None)

    def did(self, step: int, steps: int, latents: Any) -> None:
        """Note a step. Raises LeaseLostError, and what `on_step` raises."""
        if self._lost is not None:
            raise self._lost
        self._on_step(step, steps, latents)
        shown = self._now[2]
        if time.monotonic() - self._previewed_at >= _EVERY_S:
            self._previewed_at = time.monotonic()
            # A draw does not fail because of its preview.
            with suppress(Exception):
                shown = preview(latents, self._held.inputs.engine)
        self._now = (step, steps, shown)

    async def run(self) -> None:
        """Write the progress when it has changed, and look whether the claim is lost, until cancelled."""
        written: tuple[int, int, bytes | None] | None = None
        while self._lost is None:
            now = self._now
            try:
                async with self._database.begin() as session:
                    await repository.check(session, self._held)
                    if now != written:
                        await repository.report(session, self._held, *now)
                written = now
            except LeaseLostError as error:
                self._lost = error
            except Exception as error:  # noqa: BLE001 - the draw goes on without its progress
                log.warning("generation.progress_failed", generation_id=self._held.generation_id, error=repr(error))
            await asyncio.sleep(_EVERY_S)
