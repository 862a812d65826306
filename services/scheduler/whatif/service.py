"""The answer to a what-if: the checks of a real request, advice about its images, and an estimate. Nothing is written."""

import asyncio
from uuid import UUID

from pydantic import BaseModel

from services.scheduler.checks import Checked, check
from services.scheduler.schemas import CreateTune, Details, Warning_
from services.scheduler.settings import SchedulerSettings
from services.scheduler.whatif import repository
from services.scheduler.whatif.estimate import Estimate, estimate
from services.scheduler.whatif.lint import lint_images, lint_request
from services.scheduler.whatif.measures import Measurer, Measures
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.engines import Engine
from shared.errors import NameTakenError, NotFoundError
from shared.scratch import Scratch
from shared.shares import Shares
from shared.tunes.memory import SMALL_PX
from shared.tunes.options import default_parameters

_AT_ONCE = 3
_WAIT_S = 30.0


class WhatIf(BaseModel):
    """What a tune would take. `lint` is advice: the tune would be accepted in spite of it."""

    lint: list[Warning_]
    estimate: Estimate


class WhatIfService:
    """Answers `POST /v1/tune?whatif=true`."""

    def __init__(self, database: Database, blobs: Blobs, settings: SchedulerSettings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._scratch = Scratch(settings.work_dir, leftovers=("whatif-*",))
        self._room = Shares(_AT_ONCE)

    async def answer(self, account_id: UUID, body: CreateTune) -> WhatIf:
        """Return lint and estimate of a request.

        Raises what the creation of the tune would raise, and LimitError when this process has measured the images of other
        requests for too long.
        """
        details = body.details
        async with self._database.begin() as session:
            checked = await check(session, account_id, body, private_webhooks=self._settings.webhook_allow_private)
            if await repository.name_is_taken(session, account_id, body.name):
                msg = f"name: {body.name!r} is in use; choose another name, or delete the tune or asset that has it first"
                raise NameTakenError(msg)
            past = await repository.trained_alike(session, checked.base.data["shape_class"])
        cost = estimate(details, checked.base, past)
        measured, lint = await self._look_at(account_id, checked, details)
        lint += [
            Warning_(code="not_checked_yet", message="the image is still being checked, so it has no lint yet", file_id=file_id)
            for file_id, asset in checked.files.items()
            if asset.status == "uploaded"
        ]
        resolution_px = details.resolution or checked.base.data["native_size_px"]
        divisor_px = _divisor_px(checked.base)
        return WhatIf(lint=lint + lint_images(details.files, measured, resolution_px, divisor_px), estimate=cost)

    async def _look_at(
        self, account_id: UUID, checked: Checked, details: Details
    ) -> tuple[dict[str, Measures | None], list[Warning_]]:
        """Return what the images and the captions are like."""
        busy = f"this server has measured the images of other requests for {_WAIT_S:g} s; retry in 1 s"
        # A form sends its next request while the one before is measured. That is no excess, so it waits.
        async with self._room.slot(account_id, wait_s=_WAIT_S, message=busy):
            measured = await self._measure(checked)
            # Counting the tokens of 200 captions may take 15 s, and the loop has other requests.
            batch_size = details.batch_size or default_parameters(checked.base.data["native_size_px"])["batch_size"]
            lint = await asyncio.to_thread(lint_request, details, batch_size)
        return measured, lint

    async def _measure(self, checked: Checked) -> dict[str, Measures | None]:
        keys = {file_id: asset.blob_key for file_id, asset in checked.files.items() if asset.status == "ready" and asset.blob_key}
        measured: dict[str, Measures | None] = {}
        if not keys:
            return measured
        async with Measurer() as measurer:
            with self._scratch.temporary("whatif-") as folder:
                file = folder / "image"
                for file_id, key in keys.items():
                    try:
                        await self._blobs.get_file(key, file)
                    except NotFoundError:
                        measured[file_id] = None
                    else:
                        measured[file_id] = await measurer.measure(file)
        return measured


def _divisor_px(base: Asset) -> int:
    """Return what divides the sides of a training bucket: the VAE's factor times the UNet's, which has a level less for SDXL."""
    has_four_levels = base.data["engine"] == Engine.SD15 and base.data["native_size_px"] >= SMALL_PX
    return base.data.get("vae_factor", 8) * (8 if has_four_levels else 4)
