"""Decisions about image requests: what a request names, which seeds it draws, and how its answer is waited for."""

import asyncio
import base64
import hashlib
import secrets
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import repository
from services.inference.inputs import Inputs, LoraRef, ModelRef, Result
from services.inference.schemas import MAX_SEED, NOT_SERVED, GenerateAnswer, GenerateRequest, Image, Sampler
from services.inference.settings import InferenceSettings
from services.inference.sizes import ALLOWED, DEFAULT_PX
from shared import outbox, quotas
from shared.auth import Principal
from shared.blobs import Blobs
from shared.db import Database
from shared.engines import Engine
from shared.errors import InvalidError, NotSupportedError, TunesmithError, UnavailableError
from shared.events import Fact, ImageFailed, ImageGenerated, ImageRequested
from shared.hints import Hints
from shared.idempotency import IdempotentRequest
from shared.ids import new_id
from shared.tables import Asset, Context, Generation

_DEFAULT_CHECKPOINT = {Engine.SD15: "octoai:default-sd15", Engine.SDXL: "octoai:default-sdxl"}
_POLL_S = 1.0
_MAX_IMAGE_BYTES = 64 * 2**20


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
        self._waiting: dict[str, asyncio.Event] = {}
        self.hints = Hints(settings, [ImageGenerated, ImageFailed], self._heard)

    async def generate(
        self, caller: Principal, once: IdempotentRequest, engine: Engine, body: GenerateRequest
    ) -> tuple[GenerateAnswer, list[str]]:
        """Return the pictures and what the caller should know about them.

        Raises InvalidError for what the request names wrongly, NotSupportedError for what is not served, LimitError for one
        image too many, UnavailableError while the broker is away, GenerationTimeoutError, and GenerationFailedError.
        """
        for field, nothing in NOT_SERVED.items():
            if getattr(body, field) not in nothing:
                msg = f"{field}: not supported yet"
                raise NotSupportedError(msg)
        if not self.hints.listening.is_set():
            msg = "images cannot be generated just now: the broker is away; try again"
            raise UnavailableError(msg, headers={"Retry-After": "2"})
        new = new_id("gen")
        event = self._waiting[new] = asyncio.Event()
        try:
            async with self._database.begin() as session:
                generation_id = await once.refer(session, Context.IMAGES, caller, new)
                if generation_id == new:
                    await quotas.admit_images(session, caller.account_id, self._settings, body.num_images)
                    inputs = await self._resolve(session, caller.account_id, engine, body)
                    await self._store(session, new, caller.account_id, inputs)
            generation = await self._finished(generation_id, event)
        finally:
            del self._waiting[new]
        return await self._answer(generation)

    async def reconcile(self) -> None:
        """Give requests whose worker went away to another, and say again what nobody claimed."""
        async with self._database.begin() as session:
            again = await repository.take_expired(session)
            again += await repository.unclaimed(session, self._settings.generation_hint_s)
            for generation in again:
                if generation.attempt >= self._settings.generation_attempts:
                    message = f"{generation.attempt} attempts to draw it came to nothing"
                    await repository.fail(session, generation, code="attempts_exhausted", message=message, status=500)
                else:
                    await outbox.publish(session, Context.IMAGES, _requested(generation))

    def _heard(self, fact: Fact) -> None:
        if event := self._waiting.get(fact.key):
            event.set()

    async def _resolve(self, session: AsyncSession, account_id: UUID, engine: Engine, body: GenerateRequest) -> Inputs:
        base = await self._find(session, account_id, "checkpoint", body.checkpoint or _DEFAULT_CHECKPOINT[engine])
        if base.data.get("engine") != engine:
            msg = f"checkpoint: {base.name} is for {base.data.get('engine')}, this path is for {engine}"
            raise InvalidError(msg, loc=("body", "checkpoint"))
        loras: list[LoraRef] = []
        for key, weight in (body.loras or {}).items():
            lora = await self._find(session, account_id, "lora", key)
            if lora.data.get("shape_class") != base.data.get("shape_class"):
                msg = (
                    f"loras: {key!r} was trained on {lora.data.get('shape_class')} and does not fit the checkpoint "
                    f"{base.name!r}, which is {base.data.get('shape_class')}"
                )
                raise InvalidError(msg, loc=("body", "loras", key))
            loras.append(LoraRef(weight=weight, **(await self._ref(session, account_id, lora)).model_dump()))
        width, height = body.width or DEFAULT_PX[engine], body.height or DEFAULT_PX[engine]
        if (width, height) not in ALLOWED[engine]:
            sizes = ", ".join(f"{w}x{h}" for w, h in sorted(ALLOWED[engine]))
            msg = f"width, height: {width}x{height} is not one of {sizes}"
            raise InvalidError(msg, loc=("body", "width"))
        return Inputs(
            engine=engine,
            base=await self._ref(session, account_id, base),
            loras=loras,
            prompt=body.prompt,
            negative_prompt=body.negative_prompt or "",
            prompt_2=body.prompt_2,
            negative_prompt_2=body.negative_prompt_2,
            sampler=body.sampler or Sampler.DDIM,
            width=width,
            height=height,
            cfg_scale=body.cfg_scale,
            steps=body.steps,
            seeds=draw_seeds(body.seed, body.num_images),
            image_encoding=body.image_encoding,
        )

    async def _find(self, session: AsyncSession, account_id: UUID, asset_type: str, key: str) -> Asset:
        asset = await repository.find_asset(session, account_id, asset_type, key)
        if asset is None:
            field = "loras" if asset_type == "lora" else asset_type
            msg = f"{field}: there is no {asset_type} named {key!r} that is ready; public ones are named octoai:NAME"
            raise InvalidError(msg, loc=("body", field, key) if asset_type == "lora" else ("body", field))
        return asset

    async def _ref(self, session: AsyncSession, account_id: UUID, asset: Asset) -> ModelRef:
        public = asset.account_id != account_id and await repository.is_platforms(session, asset.account_id)
        name = f"octoai:{asset.name}" if public else asset.name
        return ModelRef(name=name, asset_id=asset.id, blob_key=asset.blob_key or "", sha256=asset.sha256 or "")

    async def _store(self, session: AsyncSession, generation_id: str, account_id: UUID, inputs: Inputs) -> None:
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

    async def _finished(self, generation_id: str, event: asyncio.Event) -> Generation:
        """Wait for the row to be finished. A hint wakes us; without one we look once a second."""
        deadline = asyncio.get_running_loop().time() + self._settings.generate_timeout_s
        while asyncio.get_running_loop().time() < deadline:
            async with self._database.begin() as session:
                if generation := await repository.finished(session, generation_id):
                    return generation
            try:
                await asyncio.wait_for(event.wait(), _POLL_S)
            except TimeoutError:
                continue
            event.clear()
        msg = f"the images were not ready within {self._settings.generate_timeout_s:.0f} s; ask for fewer, or again later"
        raise GenerationTimeoutError(msg, headers={"Retry-After": "10"})

    async def _answer(self, generation: Generation) -> tuple[GenerateAnswer, list[str]]:
        if generation.error is not None:
            error = generation.error
            raise GenerationFailedError(error["message"], status=error["status"], code=error["code"])
        result = Result.model_validate(generation.result)
        data = await asyncio.gather(
            *(self._blobs.get_bytes(picture.key, max_bytes=_MAX_IMAGE_BYTES) for picture in result.pictures)
        )
        images = [
            Image(
                image_b64=base64.b64encode(picture_bytes).decode(),
                removed_for_safety=False,
                seed=picture.seed,
                safety_score=None,
            )
            for picture, picture_bytes in zip(result.pictures, data, strict=True)
        ]
        return GenerateAnswer(images=images, prediction_time_ms=result.prediction_time_ms), result.notices


def draw_seeds(asked: int | list[int | None] | None, count: int) -> list[int]:
    """Return a seed for each image: s gives s, s+1, ... modulo 2^32; what a list leaves out is drawn."""
    if isinstance(asked, int):
        return [(asked + number) % (MAX_SEED + 1) for number in range(count)]
    given = (asked or []) + [None] * count
    return [secrets.randbelow(MAX_SEED + 1) if seed is None else seed for seed in given[:count]]


def _requested(generation: Generation) -> ImageRequested:
    return ImageRequested(generation_id=generation.id, affinity=generation.affinity, version=generation.version)
