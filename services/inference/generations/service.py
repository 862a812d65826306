"""Generations: taken all or none, listed, cancelled, starred and deleted."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import endpoints, images
from services.inference import repository as requests
from services.inference.endpoints import Endpoint
from services.inference.generations import png, repository, variants
from services.inference.generations.answers import Answers, drawn_keys, keys_of
from services.inference.generations.repository import HistoryFilter
from services.inference.generations.schemas import Created, CreateGenerations, Generation, GenerationList
from services.inference.images import ImageIntake, StagedImage
from services.inference.inputs import Inputs, Result
from services.inference.resolve import Resolver
from services.inference.schemas import GenerateRequest
from services.inference.settings import InferenceSettings
from shared.accounts import quotas
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.database.tables import Generation as Row
from shared.errors import ConflictError, InvalidError, NotFoundError
from shared.http.auth import Principal
from shared.http.idempotency import IdempotentRequest
from shared.ids import new_id

_MAX_IMAGE_BYTES = 64 * 2**20


class GenerationService:
    """Keeps an account's history of images."""

    def __init__(self, settings: InferenceSettings, database: Database, blobs: Blobs, intake: ImageIntake) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._intake = intake
        self.answers = Answers(blobs, settings.generation_grace_s)

    async def create(self, caller: Principal, once: IdempotentRequest, body: CreateGenerations) -> Created:
        """Take all variants of a request, or none. A broker that is unavailable delays them: workers also look for rows.

        Raises InvalidError for a wrong field, NotSupportedError for what is not offered, and LimitError.
        """
        endpoint = endpoints.find(body.engine)
        wanted = variants.requests(body)
        number = sum(request.num_images or 1 for request in wanted)
        new = new_id("gen")
        encoded = {field: text for field in images.FIELDS if (text := getattr(body.request, field))}
        if encoded:
            # Before anything is stored for a request that would be refused; the exact check follows below.
            async with self._database.begin() as session:
                await quotas.check_images(session, caller.account_id, self._settings, number)
        staged = await self._stage(caller.account_id, new, encoded)
        handle = ""
        try:
            handle = await self._store(caller, once, endpoint, body, wanted, new, staged)
        finally:
            if handle != new:
                await self._intake.discard(staged)
        return await self._created(caller.account_id, handle)

    async def _stage(self, account_id: UUID, owner: str, encoded: dict[str, str]) -> dict[str, StagedImage]:
        try:
            return await self._intake.stage(account_id, owner, encoded)
        except InvalidError as error:
            raise InvalidError(error.message, loc=("body", "request", *error.loc[1:]), kind=error.kind) from error

    async def _store(
        self,
        caller: Principal,
        once: IdempotentRequest,
        endpoint: Endpoint,
        body: CreateGenerations,
        wanted: list[GenerateRequest],
        new: str,
        staged: dict[str, StagedImage],
    ) -> str:
        """Store the generations, and return the id of the first: `new`, or that of the earlier request that this one repeats."""
        account_id = caller.account_id
        async with self._database.begin(turn_of=account_id) as session:
            handle = await once.refer(session, Context.IMAGES, caller, new)
            if handle != new:
                return handle
            number = sum(request.num_images or 1 for request in wanted)
            await quotas.admit_images(session, account_id, self._settings, number)
            resolver = Resolver(session, account_id, self._settings.refiner_checkpoint)
            await images.commit(session, staged)
            group_id = new_id("group") if body.variants or body.group else None
            # The history is in the order of the ids, and the first variant has the id that repeats are answered from.
            ids = [new, *sorted(new_id("gen") for _ in wanted[1:])]
            grouping = body.group.model_dump(mode="json") if body.group else None
            for position, request in enumerate(wanted):
                try:
                    inputs = await resolver.inputs(endpoint, request, staged)
                except InvalidError as error:
                    loc = (*variants.where(body, position), *error.loc[1:])
                    raise InvalidError(error.message, loc=loc, kind=error.kind) from error
                inputs.with_previews = True
                row = Row(
                    id=ids[position],
                    endpoint=body.engine,
                    request=variants.recorded(request, inputs),
                    group_id=group_id,
                    grouping=grouping,
                    position=position,
                )
                await requests.queue(session, row, account_id, inputs)
        return new

    async def _created(self, account_id: UUID, handle: str) -> Created:
        async with self._database.begin() as session:
            [first] = await repository.some(session, account_id, [handle]) or [None]
            if first is None:
                # A repeat whose generations were deleted since.
                return Created(group_id=None, data=[])
            rows = [first]
            if first.group_id is not None:
                found = await repository.some(session, account_id, await self.group(session, account_id, first.group_id))
                rows = sorted(found, key=lambda row: row.position)
            return Created(group_id=first.group_id, data=await self.answers.show(session, account_id, rows))

    async def group(self, session: AsyncSession, account_id: UUID, group_id: str) -> list[str]:
        """Return the ids of a group's generations. Raises NotFoundError."""
        found = await repository.ids_of_group(session, account_id, group_id)
        if not found:
            msg = f"there is no group {group_id[:100]!r}"
            raise NotFoundError(msg)
        return found

    async def page(self, account_id: UUID, wanted: HistoryFilter, limit: int) -> GenerationList:
        """Return a page of the history, newest first."""
        async with self._database.begin() as session:
            found = await repository.page(session, account_id, wanted, limit + 1)
            data = await self.answers.show(session, account_id, found[:limit])
        return GenerationList(data=data, has_more=len(found) > limit)

    async def get(self, account_id: UUID, generation_id: str) -> Generation:
        """Return a generation. Raises NotFoundError."""
        async with self._database.begin() as session:
            rows = await repository.some(session, account_id, [generation_id])
            return await self._one(session, account_id, rows, generation_id)

    async def cancel(self, account_id: UUID, generation_id: str) -> Generation:
        """Cancel a generation, and return it. Raises NotFoundError, and ConflictError for one that has ended otherwise."""
        async with self._database.begin() as session:
            row = await self._lock(session, account_id, generation_id)
            if row.state in {"succeeded", "failed"}:
                msg = f"the generation {generation_id} has {row.state} already; only one that has not ended can be cancelled"
                raise ConflictError(msg)
            if row.state != "cancelled":
                await repository.cancel(session, row)
            return await self._one(session, account_id, [row], generation_id)

    async def star(self, account_id: UUID, generation_id: str, *, starred: bool) -> Generation:
        """Keep a generation and its images, or let them go. Raises NotFoundError, and ConflictError for deleted images."""
        async with self._database.begin() as session:
            row = await self._lock(session, account_id, generation_id)
            if starred and row.starred_at is None:
                kept = await blob_rows.keep(session, keys_of(row))
                if gone := set(drawn_keys(row)) - kept:
                    msg = f"{len(gone)} of the generation's images are deleted already; send its request again"
                    raise ConflictError(msg)
            if not starred and row.starred_at is not None:
                await blob_rows.orphan(session, *keys_of(row))
            if starred != (row.starred_at is not None):
                await repository.set_star(session, row, starred=starred)
            return await self._one(session, account_id, [row], generation_id)

    async def delete(self, account_id: UUID, generation_id: str) -> None:
        """Delete a generation; its images follow when no link to them is valid any more. Raises NotFoundError."""
        async with self._database.begin() as session:
            row = await self._lock(session, account_id, generation_id)
            await blob_rows.orphan(session, *keys_of(row))
            await repository.remove(session, row)

    async def as_png(self, account_id: UUID, generation_id: str, number: int) -> bytes:
        """Return an image as a PNG that names its settings. Raises NotFoundError."""
        async with self._database.begin() as session:
            rows = await repository.some(session, account_id, [generation_id])
            if not rows:
                raise _unknown(generation_id)
            row = rows[0]
        result = Result.model_validate(row.result) if row.result is not None else None
        image = result.pictures[number] if result and number < len(result.pictures) else None
        if image is None or image.key is None:
            msg = f"the generation {generation_id} has no image {number}"
            raise NotFoundError(msg)
        data = await self._blobs.get_bytes(image.key, max_bytes=_MAX_IMAGE_BYTES)
        return await png.with_settings(data, row.request or {}, Inputs.model_validate(row.inputs), image.seed)

    async def _lock(self, session: AsyncSession, account_id: UUID, generation_id: str) -> Row:
        row = await repository.lock(session, account_id, generation_id)
        if row is None:
            raise _unknown(generation_id)
        return row

    async def _one(self, session: AsyncSession, account_id: UUID, rows: Sequence[Row], generation_id: str) -> Generation:
        if not rows:
            raise _unknown(generation_id)
        return (await self.answers.show(session, account_id, rows))[0]


def _unknown(generation_id: str) -> NotFoundError:
    return NotFoundError(f"there is no generation {generation_id[:100]!r}")
