"""The events of a tune over HTTP: a page of them, or a stream."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.scheduler.events import curve
from services.scheduler.events.schemas import EventList, Losses, SampleList
from services.scheduler.events.service import EventReader, EventStreams
from services.scheduler.service import TuneService
from shared.database.sessions import Database
from shared.http.auth import Principal, require
from shared.http.routes import GuardedRoute
from shared.http.streams import MEDIA_TYPE, EventStream

_STREAM_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events; `id` is the event's sequence number, `event` its type, `data` the event as JSON.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "The tune has ended, and no event is left."},
}

Caller = Annotated[Principal, Depends(require("tunes"))]
After = Annotated[int, Query(ge=0, description="Only events with a larger sequence number.")]
LastEventId = Annotated[
    int | None, Header(ge=0, description="The sequence number of the last event that the client has seen; it overrides `after`.")
]


def router(database: Database, service: TuneService, reader: EventReader, streams: EventStreams) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1", tags=["tunes"], route_class=GuardedRoute)

    async def stream(request: Request, caller: Principal, tune_id: str, after: int) -> Response:
        with streams.room.of(caller.account_id):
            pass
        async with database.begin() as session:
            ended = await service.has_ended(session, caller.account_id, tune_id)
            left = await reader.page(session, tune_id, after=after, limit=1)
        if ended and not left.data:
            # A browser's EventSource reconnects when its stream ends; a 204 makes it stop.
            return Response(status_code=204)
        frames = streams.frames(tune_id, after=after, stopping=request.app.state.stopping)
        return EventStream(frames, lambda: streams.room.of(caller.account_id))

    @routes.get(
        "/tune/{tune_id}/events",
        summary="A tune's events, oldest first; with `Accept: text/event-stream` as they happen",
        response_model=EventList,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}, 204: _STREAM_ANSWERS[204]},
    )
    async def events(
        caller: Caller,
        request: Request,
        tune_id: str,
        *,
        after: After = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
        progress: Annotated[bool, Query(description="Whether a page has the reports of progress, which are most events.")] = True,
        last_event_id: LastEventId = None,
    ) -> Response | EventList:
        if MEDIA_TYPE in request.headers.get("Accept", ""):
            return await stream(request, caller, tune_id, after if last_event_id is None else last_event_id)
        async with database.begin() as session:
            await service.has_ended(session, caller.account_id, tune_id)
            return await reader.page(session, tune_id, after=after, limit=limit, progress=progress)

    @routes.get("/tune/{tune_id}/losses", summary="The loss of each step of a tune")
    async def losses(
        caller: Caller,
        tune_id: str,
        after: Annotated[int, Query(ge=0, le=2**31, description="Only later steps than this one.")] = 0,
    ) -> Losses:
        async with database.begin() as session:
            await service.has_ended(session, caller.account_id, tune_id)
            return await curve.losses(session, tune_id, after=after)

    @routes.get("/tune/{tune_id}/samples", summary="The images that were generated during the training of a tune")
    async def samples(caller: Caller, tune_id: str) -> SampleList:
        async with database.begin() as session:
            await service.has_ended(session, caller.account_id, tune_id)
            return await curve.samples(session, reader, tune_id)

    @routes.get(
        "/tune/{tune_id}/events/stream",
        summary="A tune's events, as they happen",
        response_class=StreamingResponse,
        responses=_STREAM_ANSWERS,
    )
    async def event_stream(
        caller: Caller, request: Request, tune_id: str, after: After = 0, last_event_id: LastEventId = None
    ) -> Response:
        return await stream(request, caller, tune_id, after if last_event_id is None else last_event_id)

    return routes
