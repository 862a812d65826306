"""The tune API over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.repository import TuneFilter
from services.scheduler.schemas import CreateTune, TuneAnswer, TuneList
from services.scheduler.service import TuneService
from services.scheduler.whatif.service import WhatIf, WhatIfService
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import GuardedRoute
from shared.states import ClientStatus

Caller = Annotated[Principal, Depends(require("tunes"))]
Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=2**31)]


def router(database: Database, service: TuneService, what_if: WhatIfService) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1", tags=["tunes"], route_class=GuardedRoute)

    @routes.post(
        "/tune",
        status_code=201,
        summary="Start a tune; with `whatif`, only check it and estimate what it takes",
        response_model=TuneAnswer,
        responses={200: {"model": WhatIf, "description": "With `whatif`: nothing is started."}},
    )
    async def create(caller: Caller, once: Once, body: CreateTune, *, whatif: bool = False) -> TuneAnswer | Response:
        if whatif:
            return JSONResponse((await what_if.answer(caller.account_id, body)).model_dump(mode="json"))

        async def work(session: AsyncSession) -> TuneAnswer:
            return await service.create(session, caller.account_id, body)

        return await once.run(database, Context.TUNES, caller, work, in_turn=True)

    @routes.get("/tune/{tune_id}", summary="A tune")
    async def get(caller: Caller, tune_id: str) -> TuneAnswer:
        async with database.begin() as session:
            return await service.get(session, caller.account_id, tune_id)

    @routes.post("/tune/{tune_id}/cancel", summary="Cancel a tune")
    async def cancel(caller: Caller, once: Once, tune_id: str) -> TuneAnswer:
        return await once.run(
            database, Context.TUNES, caller, lambda session: service.cancel(session, caller.account_id, tune_id)
        )

    @routes.delete("/tune/{tune_id}", summary="Delete a tune; its images and its LoRA stay")
    async def delete(caller: Caller, tune_id: str) -> TuneAnswer:
        async with database.begin() as session:
            return await service.delete(session, caller.account_id, tune_id)

    @routes.get("/tunes", summary="The account's tunes, by default newest first")
    async def list_(
        caller: Caller,
        *,
        name: str | None = None,
        tune_type: str | None = None,
        base_checkpoint_id: str | None = None,
        base_checkpoint: Annotated[
            str | None, Query(description="The same as base_checkpoint_id, as another client calls it.")
        ] = None,
        trigger_words: Annotated[list[str] | None, Query()] = None,
        engine: str | None = None,
        q: Annotated[
            str | None, Query(max_length=200, description="A part of the name, the description or the trigger word.")
        ] = None,
        status: Annotated[list[ClientStatus] | None, Query(description="Only tunes with one of these.")] = None,
        sort: Literal["newest", "oldest", "name"] = "newest",
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> TuneList:
        if tune_type not in {None, "lora_tune"}:
            return TuneList(data=[], has_more=False, total=0)
        # Some clients repeat the parameter, others join the words with commas.
        words = tuple(word for part in trigger_words or [] for word in part.split(",") if word)
        base = base_checkpoint_id or base_checkpoint
        wanted = TuneFilter(name, base, words, engine, words=q, statuses=tuple(status or ()), sort=sort)
        async with database.begin() as session:
            return await service.list(session, caller.account_id, wanted, offset=offset, limit=limit)

    return routes
