"""The life of an image request: taking it in, waiting for its result, and retrying it when a worker is lost."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import images, repository
from services.inference.endpoints import Endpoint
from services.inference.images import ImageIntake, StagedImage
from services.inference.inputs import Result, StoredImage
from services.inference.resolve import Resolver
from services.inference.schemas import GenerateAnswer, GenerateRequest, Image, PollAnswer
from services.inference.settings import InferenceSettings
from shared.accounts import quotas
from shared.blobs.store import Blobs
from shared.database.rounds import for_each_row
from shared.database.sessions import Database
from shared.database.tables import Context, Generation
from shared.errors import InvalidError, NotFoundError, NotSupportedError, TunesmithError, UnavailableError
from shared.http.auth import Principal
from shared.http.idempotency import IdempotentRequest
from shared.ids import new_id
from shared.messaging.events import Event, ImageFailed, ImageGenerated
from shared.messaging.hints import Hints

_POLL_S = 1.0
_RECONCILED_AT_ONCE = 200
"""Requests whose events one round publishes, which would otherwise fill the outbox when no worker runs."""
_MAX_IMAGE_BYTES = 64 * 2**20
_STATUS: dict[str, Literal["pending", "running"]] = {"queued": "pending", "running": "running"}


class GenerationTimeoutError(TunesmithError):
    """The images were not ready in time. The request goes on, but this response ends."""

    status = 504
    code = "generation_timeout"
    retryable = True


class GenerationFailedError(TunesmithError):
    """The images could not be generated; the message says why."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status  # pyright: ignore[reportAttributeAccessIssue] - the worker chose status and code
        self.code = code  # pyright: ignore[reportAttributeAccessIssue] - as status


class ImageService:
    """Takes image requests and waits for their results; `background` has the connections of what no request waits for."""

    def __init__(
        self, settings: InferenceSettings, database: Database, blobs: Blobs, *, background: Database | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._background = background or database
        self._blobs = blobs
        self.intake = ImageIntake(settings, database, blobs)
        self._waiting: dict[str, asyncio.Event] = {}
        self.hints = Hints(settings, [ImageGenerated, ImageFailed], self._heard)

    async def generate(
        self, caller: Principal, once: IdempotentRequest, endpoint: Endpoint, body: GenerateRequest
    ) -> tuple[GenerateAnswer, list[str]]:
        """Return the images and the notices about them.

        Raises what `submit` raises, GenerationTimeoutError, and GenerationFailedError.
        """
        new = new_id("gen")
        ended = self._waiting[new] = asyncio.Event()
        try:
            generation_id = await self.submit(caller, once, endpoint, body, new)
            generation = await self._finished(generation_id, ended)
        finally:
            del self._waiting[new]
        return await self._answer(generation)

    async def submit(
        self, caller: Principal, once: IdempotentRequest, endpoint: Endpoint, body: GenerateRequest, new: str | None = None
    ) -> str:
        """Store a request and return its id: `new`, or the id of the earlier request that this one repeats.

        Raises InvalidError for a wrong field, NotSupportedError for what is not offered, LimitError when the account has too
        many images in flight, and UnavailableError while the broker is unavailable.
        """
        if body.transfer_images:
            msg = "transfer_images: Photo Merge is not offered here; leave the field out"
            raise NotSupportedError(msg)
        if not self.hints.listening.is_set():
            msg = "images cannot be generated because the broker is unavailable; try again"
            raise UnavailableError(msg, headers={"Retry-After": "2"})
        new = new or new_id("gen")
        encoded = {field: text for field in images.FIELDS if (text := getattr(body, field))}
        if encoded:
            # Before anything is stored for a request that would be refused; the exact check follows below.
            async with self._database.begin() as session:
                await quotas.check_images(session, caller.account_id, self._settings, body.num_images or 1)
        staged = await self.intake.stage(caller.account_id, new, encoded)
        generation_id = ""
        try:
            generation_id = await self._store(caller, once, endpoint, body, new, staged)
        finally:
            if generation_id != new:
                await self.intake.discard(staged)
        return generation_id

    async def _store(
        self,
        caller: Principal,
        once: IdempotentRequest,
        endpoint: Endpoint,
        body: GenerateRequest,
        new: str,
        staged: dict[str, StagedImage],
    ) -> str:
        async with self._database.begin(turn_of=caller.account_id) as session:
            generation_id = await once.refer(session, Context.IMAGES, caller, new)
            if generation_id == new:
                await quotas.admit_images(session, caller.account_id, self._settings, body.num_images or 1)
                resolver = Resolver(session, caller.account_id, self._settings.refiner_checkpoint)
                inputs = await resolver.inputs(endpoint, body, staged)
                await images.commit(session, staged)
                await repository.queue(session, Generation(id=new), caller.account_id, inputs)
        return generation_id

    async def poll(self, account_id: UUID, generation_id: str, response_url: str) -> PollAnswer:
        """Return the status of a request; a failed one is `completed`, and its result is the error. Raises NotFoundError."""
        generation = await self._find(account_id, generation_id)
        return PollAnswer(status=_STATUS.get(generation.state, "completed"), response_url=response_url)

    async def result(self, account_id: UUID, generation_id: str) -> tuple[GenerateAnswer, list[str]]:
        """Return what `generate` returns. Raises NotFoundError, also after the images are deleted, and GenerationFailedError."""
        generation = await self._find(account_id, generation_id)
        if generation.finished_at is None:
            msg = f"response {generation_id}: not completed yet; poll its poll_url"
            raise NotFoundError(msg, headers={"Retry-After": "1"})
        return await self._answer(generation)

    async def reconcile(self) -> None:
        """Queue requests whose claims expired, republish unclaimed requests, and fail those without attempts left."""
        hint_s, attempts = self._settings.generation_hint_s, self._settings.generation_attempts

        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.overdue(session, hint_s, attempts, after=after, limit=limit)

        await for_each_row(self._background, "reconciler", page, self._reconcile, most=_RECONCILED_AT_ONCE)

    async def _reconcile(self, session: AsyncSession, generation_id: str) -> bool:
        attempts = self._settings.generation_attempts
        waiting = await repository.requeue_expired(session, generation_id)
        waiting = waiting or await repository.touch_unclaimed(session, generation_id, self._settings.generation_hint_s)
        if waiting is not None and waiting.attempt < attempts:
            await repository.publish_requested(session, waiting)
        if generation := await repository.find_exhausted(session, generation_id, attempts):
            message = f"generation failed after {generation.attempt} attempts; send the request again"
            await repository.fail(session, generation, code="attempts_exhausted", message=message, status=500)
        return waiting is not None

    def _heard(self, event: Event) -> None:
        if ended := self._waiting.get(event.key):
            ended.set()

    async def _find(self, account_id: UUID, generation_id: str) -> Generation:
        generation = None
        # PostgreSQL refuses NUL, which a path may contain.
        if generation_id.isprintable():
            async with self._database.begin() as session:
                generation = await repository.own(session, account_id, generation_id)
        if generation is None:
            msg = f"there is no response {generation_id[:100]!r}"
            raise NotFoundError(msg)
        return generation

    async def _finished(self, generation_id: str, ended: asyncio.Event) -> Generation:
        """Wait until the request has ended. A hint wakes this task; without a hint it looks once a second."""
        deadline = asyncio.get_running_loop().time() + self._settings.generate_timeout_s
        while asyncio.get_running_loop().time() < deadline:
            async with self._database.begin() as session:
                if generation := await repository.finished(session, generation_id):
                    return generation
            try:
                await asyncio.wait_for(ended.wait(), _POLL_S)
            except TimeoutError:
                continue
            ended.clear()
        msg = f"the images were not ready within {self._settings.generate_timeout_s:.0f} s; ask for fewer, or try again later"
        raise GenerationTimeoutError(msg, headers={"Retry-After": "10"})

    async def _answer(self, generation: Generation) -> tuple[GenerateAnswer, list[str]]:
        if generation.error is not None:
            error = generation.error
            if error["status"] == InvalidError.status:
                raise InvalidError(error["message"], loc=tuple(error.get("loc", ("body",))))
            raise GenerationFailedError(error["message"], status=error["status"], code=error["code"])
        result = Result.model_validate(generation.result)
        answered = await asyncio.gather(*(self._image(stored) for stored in result.pictures))
        return GenerateAnswer(images=answered, prediction_time_ms=result.prediction_time_ms), result.notices

    async def _image(self, stored: StoredImage) -> Image:
        data = await self._blobs.get_bytes(stored.key, max_bytes=_MAX_IMAGE_BYTES) if stored.key else None
        return Image(
            image_b64=None if data is None else base64.b64encode(data).decode(),
            removed_for_safety=stored.removed_for_safety,
            seed=stored.seed,
            safety_score=stored.safety_score,
        )
