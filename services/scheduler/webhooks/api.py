"""The webhooks of an account over HTTP: its secret, and the calls of a tune."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from services.scheduler.service import TuneService
from services.scheduler.webhooks import service as webhooks
from services.scheduler.webhooks.schemas import DeliveryList, Secret
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import GuardedRoute

Caller = Annotated[Principal, Depends(require("tunes"))]
After = Annotated[int, Query(ge=0, description="Only calls for events with a larger sequence number.")]


def router(database: Database, service: TuneService) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1", tags=["tunes"], route_class=GuardedRoute)

    @routes.get("/tunes/webhook-secret", summary="The secret that the account's webhooks are signed with")
    async def webhook_secret(caller: Caller) -> Secret:
        async with database.begin() as session:
            return await webhooks.current_secret(session, caller.account_id)

    @routes.post("/tunes/webhook-secret/rotate", summary="Replace the secret; the old one signs as well for a day")
    async def rotate_webhook_secret(caller: Caller, once: Once) -> Secret:
        return await once.run(database, Context.TUNES, caller, lambda session: webhooks.rotate(session, caller.account_id))

    @routes.get("/tune/{tune_id}/webhook_deliveries", summary="The calls of a tune's webhook and their outcomes, oldest first")
    async def deliveries(
        caller: Caller, tune_id: str, *, after: After = 0, limit: Annotated[int, Query(ge=1, le=100)] = 100
    ) -> DeliveryList:
        async with database.begin() as session:
            await service.get(session, caller.account_id, tune_id)
            return await webhooks.page(session, tune_id, after=after, limit=limit)

    return routes
