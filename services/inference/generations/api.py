"""The generation API over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.inference.generations import engines
from services.inference.generations.repository import HistoryFilter
from services.inference.generations.schemas import (
    ChangeGeneration,
    Created,
    CreateGenerations,
    EngineList,
    Generation,
    GenerationList,
)
from services.inference.generations.service import GenerationService
from services.inference.generations.stream import LAST_ID, GenerationStreams
from services.inference.settings import InferenceSettings
from shared.database.sessions import Database
from shared.errors import InvalidError
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import guarded_route
from shared.http.streams import MEDIA_TYPE, EventStream

Caller = Annotated[Principal, Depends(require("images"))]
# PostgreSQL refuses NUL, which a query may contain.
_TEXT = r"^[^\x00]*$"
Text = Annotated[str | None, Query(max_length=200, pattern=_TEXT)]
GenerationId = Annotated[str, Path(max_length=100, pattern=r"^[ -~]*$")]
_MOST_IDS = 100


def router(database: Database, service: GenerationService, streams: GenerationStreams, settings: InferenceSettings) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1", tags=["images"], route_class=guarded_route(settings.max_body_bytes))

    @routes.post("/generations", status_code=202, summary="Request images, or up to 64 variants of them, for the history")
    async def create(caller: Caller, once: Once, body: CreateGenerations) -> Created:
        return await service.create(caller, once, body)

    @routes.get("/generations", summary="The history of images, newest first")
    async def list_(
        caller: Caller,
        *,
        before: Annotated[
            str | None, Query(max_length=100, pattern=_TEXT, description="The id of the last generation of the page before.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        q: Annotated[str | None, Query(max_length=200, pattern=_TEXT, description="Words of the prompt.")] = None,
        lora: Text = None,
        checkpoint: Text = None,
        starred: bool | None = None,
        group: Text = None,
    ) -> GenerationList:
        wanted = HistoryFilter(before=before, words=q, lora=lora, checkpoint=checkpoint, starred=starred, group=group)
        return await service.page(caller.account_id, wanted, limit)

    _add_stream(routes, database, service, streams)

    @routes.get("/generations/{generation_id}", summary="A generation")
    async def get(caller: Caller, generation_id: GenerationId) -> Generation:
        return await service.get(caller.account_id, generation_id)

    @routes.get(
        "/generations/{generation_id}/images/{number}/png",
        summary="An image as a PNG that names its settings",
        response_class=Response,
        responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def as_png(caller: Caller, generation_id: GenerationId, number: Annotated[int, Path(ge=0, le=15)]) -> Response:
        data = await service.as_png(caller.account_id, generation_id, number)
        named = f'attachment; filename="{generation_id}-{number}.png"'
        return Response(data, media_type="image/png", headers={"Content-Disposition": named, "X-Content-Type-Options": "nosniff"})

    @routes.post("/generations/{generation_id}/cancel", summary="Cancel a generation")
    async def cancel(caller: Caller, generation_id: GenerationId) -> Generation:
        return await service.cancel(caller.account_id, generation_id)

    @routes.patch("/generations/{generation_id}", summary="Give a generation a star, which keeps its images, or take it away")
    async def change(caller: Caller, generation_id: GenerationId, body: ChangeGeneration) -> Generation:
        return await service.star(caller.account_id, generation_id, starred=body.starred)

    @routes.delete("/generations/{generation_id}", status_code=204, summary="Delete a generation and its images")
    async def delete(caller: Caller, generation_id: GenerationId) -> Response:
        await service.delete(caller.account_id, generation_id)
        return Response(status_code=204)

    @routes.get("/engines", summary="The engines, with the sizes, samplers and styles that they take")
    async def list_engines(caller: Caller) -> EngineList:
        async with database.begin() as session:
            return await engines.listed(session, caller.account_id, settings)

    return routes


def _add_stream(routes: APIRouter, database: Database, service: GenerationService, streams: GenerationStreams) -> None:
    @routes.get(
        "/generations/stream",
        summary="The progress of generations, as it happens",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Server-sent events: `progress`, at most two a second, and `done`, the generation.",
                "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
            },
            404: {"description": "The group does not exist, or is another account's."},
            204: {"description": "The client has seen how all of them ended: it sends the last event's id."},
        },
    )
    async def stream(
        caller: Caller,
        request: Request,
        *,
        group: Text = None,
        ids: Annotated[list[str] | None, Query(description="Ids, repeated or separated by commas; at most 100.")] = None,
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    ) -> Response:
        if last_event_id == LAST_ID:
            # A browser's EventSource reconnects when its stream ends; a 204 makes it stop.
            return Response(status_code=204)
        wanted = _split(ids, group)
        with streams.room.of(caller.account_id):
            pass
        if group is not None:
            async with database.begin() as session:
                wanted = await service.group(session, caller.account_id, group)
        frames = await streams.frames(caller.account_id, wanted, stopping=request.app.state.stopping)
        return EventStream(frames, lambda: streams.room.of(caller.account_id))


def _split(ids: list[str] | None, group: str | None) -> list[str]:
    # PostgreSQL refuses NUL, which a query may contain.
    found = [one for part in ids or [] for one in part.split(",") if one and one.isprintable()]
    if (group is None) == (not found) or len(found) > _MOST_IDS:
        msg = f"group, ids: {len(found)} ids and {'a' if group else 'no'} group; send a group, or 1 to {_MOST_IDS} ids"
        raise InvalidError(msg, loc=("query", "ids"))
    return found
