"""The image API: parse, call, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response

from services.inference import endpoints
from services.inference.endpoints import NOT_OFFERED, Endpoint
from services.inference.schemas import AsyncAnswer, GenerateAnswer, GenerateRequest, PollAnswer
from services.inference.service import ImageService
from services.inference.settings import InferenceSettings
from shared.errors import NotSupportedError
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import guarded_route

NOTICE_HEADER = "X-Tunesmith-Notice"
_LONGEST_NOTICE = 4000
Caller = Annotated[Principal, Depends(require("images"))]
# A dependency runs before the body is validated: an engine that is not offered is a 400, whatever the fields.
RequestedEndpoint = Annotated[Endpoint, Depends(endpoints.find)]
Async = Annotated[str | None, Header(alias="X-OctoAI-Async", description="`1` returns at once the URL to poll for the result.")]
_TIMEOUT: dict[int | str, dict[str, Any]] = {504: {"description": "The images were not ready in time (`generation_timeout`)."}}


def router(service: ImageService, settings: InferenceSettings) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(tags=["images"], route_class=guarded_route(settings.max_body_bytes))

    # `endpoints.find` takes the parameter `engine`.
    @routes.post("/generate/{engine}", summary="Generate images", responses=_TIMEOUT)  # noqa: FAST003
    async def generate(
        caller: Caller,
        once: Once,
        endpoint: RequestedEndpoint,
        body: GenerateRequest,
        response: Response,
        asynchronous: Async = None,
    ) -> GenerateAnswer | AsyncAnswer:
        if asynchronous == "1":
            response_id = await service.submit(caller, once, endpoint, body)
            return AsyncAnswer(response_id=response_id, poll_url=_url(settings, response_id))
        return _with_notices(response, *await service.generate(caller, once, endpoint, body))

    @routes.get("/generate/responses/{response_id}", summary="Ask whether images are ready")
    async def poll(caller: Caller, response_id: str) -> PollAnswer:
        return await service.poll(caller.account_id, response_id, f"{_url(settings, response_id)}/result")

    @routes.get("/generate/responses/{response_id}/result", summary="Fetch images that were requested asynchronously")
    async def result(caller: Caller, response_id: str, response: Response) -> GenerateAnswer:
        return _with_notices(response, *await service.result(caller.account_id, response_id))

    @routes.get("/healthcheck", include_in_schema=False)
    async def healthcheck() -> dict[str, str]:
        return {"status": "ok"}

    async def not_offered() -> None:
        msg = "image utilities are not offered here; use POST /generate/{engine}"
        raise NotSupportedError(msg)

    for path in NOT_OFFERED:
        routes.add_api_route(f"/{path}", not_offered, methods=["POST"], include_in_schema=False)
    return routes


def _url(settings: InferenceSettings, response_id: str) -> str:
    return f"{settings.public_url.rstrip('/')}/generate/responses/{response_id}"


def _with_notices(response: Response, answer: GenerateAnswer, notices: list[str]) -> GenerateAnswer:
    if notices:
        # A header holds Latin-1 without line breaks, and a notice repeats names that the caller chose.
        text = "; ".join(notices).encode("ascii", "replace").decode()
        response.headers[NOTICE_HEADER] = " ".join(text.split())[:_LONGEST_NOTICE]
    return answer
