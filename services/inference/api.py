"""The image API: parse, call, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from services.inference.schemas import GenerateAnswer, GenerateRequest
from services.inference.service import ImageService
from shared.auth import Principal, require
from shared.engines import GENERATE_PATHS
from shared.errors import NotSupportedError
from shared.idempotency import Once

NOTICE_HEADER = "X-Tunesmith-Notice"
Caller = Annotated[Principal, Depends(require("images"))]
_TIMEOUT: dict[int | str, dict[str, Any]] = {504: {"description": "The images were not ready in time (`generation_timeout`)."}}


def router(service: ImageService) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(tags=["images"])

    @routes.post("/generate/{engine}", summary="Generate images", responses=_TIMEOUT)
    async def generate(caller: Caller, once: Once, engine: str, body: GenerateRequest, response: Response) -> GenerateAnswer:
        if engine not in GENERATE_PATHS:
            msg = f"engine: {engine!r} is not served here; choose from {', '.join(GENERATE_PATHS)}"
            raise NotSupportedError(msg)
        answer, notices = await service.generate(caller, once, GENERATE_PATHS[engine], body)
        if notices:
            # A header holds Latin-1 at most; names are ASCII.
            response.headers[NOTICE_HEADER] = "; ".join(notices).encode("ascii", "replace").decode()
        return answer

    return routes
