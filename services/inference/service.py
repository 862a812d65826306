"""Decisions about image requests: taking one in, waiting for its answer, and seeing to it that it gets one."""

import asyncio
import base64
import hashlib
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import images as pictures
from services.inference import repository
from services.inference.endpoints import Path
from services.inference.images import Pictures
from services.inference.inputs import Inputs, Picture, Result
from services.inference.resolve import Resolver
from services.inference.schemas import GenerateAnswer, GenerateRequest, Image, PollAnswer
from services.inference.settings import InferenceSettings
from shared.accounts import quotas
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context, Generation
from shared.errors import InvalidError, NotFoundError, NotSupportedError, TunesmithError, UnavailableError
from shared.http.auth import Principal
from shared.http.idempotency import IdempotentRequest
from shared.ids import new_id
from shared.messaging import outbox
from shared.messaging.events import Event, ImageFailed, ImageGenerated, ImageRequested
from shared.messaging.hints import Hints

_POLL_S = 1.0
_MAX_IMAGE_BYTES = 64 * 2**20
_STATUS = {"queued": "pending", "running": "running"}


class GenerationTimeoutError(TunesmithError):
    """The images were not there in time; the request goes on, but its answer is gone."""

    status = 504
    code = "generation_timeout"
    retryable = True


class GenerationFailedError(TunesmithError):
    """The worker could not draw the images; the message says why."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status  # pyright: ignore[reportAttributeAccessIssue] - as the worker classed it
        self.code = code  # pyright: ignore[reportAttributeAccessIssue]


class ImageService:
    """Takes image requests and waits for their results."""

    def __init__(self, settings: InferenceSettings, database: Database, blobs: Blobs) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._pictures = Pictures(settings, database, blobs)
        self._waiting: dict[str, asyncio.Event] = {}
        self.hints = Hints(settings, [ImageGenerated, ImageFailed], self._heard)

    async def generate(
        self, caller: Principal, once: IdempotentRequest, path: Path, body: GenerateRequest
    ) -> tuple[GenerateAnswer, list[str]]:
        """Return the pictures and what the caller should know about them.

        Raises what `submit` raises, GenerationTimeoutError, and GenerationFailedError.
        """
        new = new_id("gen")
        drawn = self._waiting[new] = asyncio.Event()
        try:
            generation_id = await self.submit(caller, once, path, body, new)
            generation = await self._finished(generation_id, drawn)
        finally:
            del self._waiting[new]
        return await self._answer(generation)

    async def submit(
        self, caller: Principal, once: IdempotentRequest, path: Path, body: GenerateRequest, new: str | None = None
    ) -> str:
        """Take a request in and return its id: `new`, or that of the earlier request that this one repeats.

        Raises InvalidError for what it names wrongly, NotSupportedError for what is not served, LimitError for one image too
        many, and UnavailableError while the broker is away.
        """
        if body.transfer_images:
            msg = "transfer_images: Photo Merge is not offered here"
            raise NotSupportedError(msg)
        if not self.hints.listening.is_set():
            msg = "images cannot be generated just now: the broker is away; try again"
            raise UnavailableError(msg, headers={"Retry-After": "2"})
        new = new or new_id("gen")
        encoded = {field: text for field in pictures.FIELDS if (text := getattr(body, field))}
        taken = await self._pictures.take(new, encoded)
        async with self._database.begin() as session:
            generation_id = await once.refer(session, Context.IMAGES, caller, new)
            if generation_id == new:
                await quotas.admit_images(session, caller.account_id, self._settings, body.num_images or 1)
                inputs = await Resolver(session, caller.account_id, self._settings.refiner_checkpoint).inputs(path, body, taken)
                await pictures.settle(session, taken)
                await _store(session, new, caller.account_id, inputs)
        return generation_id

    async def poll(self, account_id: UUID, generation_id: str, response_url: str) -> PollAnswer:
        """Say how far a request is; failed ones are completed, too, and their result is the error. Raises NotFoundError."""
        generation = await self._find(account_id, generation_id)
        return PollAnswer(status=_STATUS.get(generation.state, "completed"), response_url=response_url)  # pyright: ignore[reportArgumentType]

    async def result(self, account_id: UUID, generation_id: str) -> tuple[GenerateAnswer, list[str]]:
        """Return what `generate` would. Raises NotFoundError, also once the pictures are gone, and GenerationFailedError."""
        generation = await self._find(account_id, generation_id)
        if generation.finished_at is None:
            msg = f"response {generation_id}: not completed yet; ask its poll_url"
            raise NotFoundError(msg, headers={"Retry-After": "1"})
        return await self._answer(generation)

    async def reconcile(self) -> None:
        """Give requests whose worker went away to another, and say again what nobody claimed."""
        async with self._database.begin() as session:
            again = await repository.take_expired(session)
            again += await repository.unclaimed(session, self._settings.generation_hint_s)
            for generation in again:
                if generation.attempt < self._settings.generation_attempts:
                    await outbox.publish(session, Context.IMAGES, _requested(generation))
            for generation in await repository.exhausted(session, self._settings.generation_attempts):
                message = f"{generation.attempt} attempts to draw it came to nothing"
                await repository.fail(session, generation, code="attempts_exhausted", message=message, status=500)

    def _heard(self, event: Event) -> None:
        if waiting := self._waiting.get(event.key):
            waiting.set()

    async def _find(self, account_id: UUID, generation_id: str) -> Generation:
        generation = None
        # PostgreSQL takes no NUL, which a path may hold.
        if generation_id.isprintable():
            async with self._database.begin() as session:
                generation = await repository.own(session, account_id, generation_id)
        if generation is None:
            msg = f"there is no response {generation_id[:100]!r}"
            raise NotFoundError(msg)
        return generation

    async def _finished(self, generation_id: str, drawn: asyncio.Event) -> Generation:
        """Wait for the row to be finished. A hint wakes us; without one we look once a second."""
        deadline = asyncio.get_running_loop().time() + self._settings.generate_timeout_s
        while asyncio.get_running_loop().time() < deadline:
            async with self._database.begin() as session:
                if generation := await repository.finished(session, generation_id):
                    return generation
            try:
                await asyncio.wait_for(drawn.wait(), _POLL_S)
            except TimeoutError:
                continue
            drawn.clear()
        msg = f"the images were not ready within {self._settings.generate_timeout_s:.0f} s; ask for fewer, or again later"
        raise GenerationTimeoutError(msg, headers={"Retry-After": "10"})

    async def _answer(self, generation: Generation) -> tuple[GenerateAnswer, list[str]]:
        if generation.error is not None:
            error = generation.error
            if error["status"] == InvalidError.status:
                raise InvalidError(error["message"], loc=tuple(error.get("loc", ("body",))))
            raise GenerationFailedError(error["message"], status=error["status"], code=error["code"])
        result = Result.model_validate(generation.result)
        images = await asyncio.gather(*(self._image(picture) for picture in result.pictures))
        return GenerateAnswer(images=images, prediction_time_ms=result.prediction_time_ms), result.notices

    async def _image(self, picture: Picture) -> Image:
        data = await self._blobs.get_bytes(picture.key, max_bytes=_MAX_IMAGE_BYTES) if picture.key else None
        return Image(
            image_b64=None if data is None else base64.b64encode(data).decode(),
            removed_for_safety=picture.removed_for_safety,
            seed=picture.seed,
            safety_score=picture.safety_score,
        )


async def _store(session: AsyncSession, generation_id: str, account_id: UUID, inputs: Inputs) -> None:
    loaded = [inputs.base.sha256, *sorted(lora.sha256 for lora in inputs.loras)]
    generation = Generation(
        id=generation_id,
        account_id=account_id,
        engine=inputs.engine,
        affinity=hashlib.sha256(" ".join(loaded).encode()).hexdigest()[:16],
        inputs=inputs.model_dump(mode="json"),
        state="queued",
        version=1,
    )
    session.add(generation)
    await outbox.publish(session, Context.IMAGES, _requested(generation))


def _requested(generation: Generation) -> ImageRequested:
    return ImageRequested(generation_id=generation.id, affinity=generation.affinity, version=generation.version)
