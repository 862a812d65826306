"""What each engine takes, and values that suit it."""

from typing import cast
from uuid import UUID

from annotated_types import Le, MaxLen
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import repository, sizes, styles
from services.inference.endpoints import ENDPOINTS, Endpoint
from services.inference.generations.schemas import MOST_VARIANTS, EngineAnswer, EngineList, Limits, Recommended, Size
from services.inference.schemas import GenerateRequest, Sampler
from services.inference.settings import InferenceSettings
from shared.engines import Engine

_ALIASES = {"controlnet-sd"}
"""Names of OctoAI's clients for an engine that has another name, too."""
_RECOMMENDED = {
    # Both families were trained for guidance of about 7 (diffusers' pipelines: 7.5 and 5); 12 burns the colours.
    Engine.SD15: (Sampler.DPM_PLUS_PLUS_2M_KARRAS, 25, 7.0),
    Engine.SDXL: (Sampler.DPM_PLUS_PLUS_2M_KARRAS, 30, 6.0),
}


async def listed(session: AsyncSession, account_id: UUID, settings: InferenceSettings) -> EngineList:
    """Return every engine, with what this server has for it."""
    refiner = settings.refiner_checkpoint
    refines = bool(refiner) and await repository.find_asset(session, account_id, "checkpoint", refiner) is not None
    data: list[EngineAnswer] = []
    for name, endpoint in ENDPOINTS.items():
        if name not in _ALIASES:
            default = await repository.find_asset(session, account_id, "checkpoint", endpoint.default_checkpoint)
            data.append(_answer(name, endpoint, settings, available=default is not None, refines=refines))
    return EngineList(data=data)


def _answer(name: str, endpoint: Endpoint, settings: InferenceSettings, *, available: bool, refines: bool) -> EngineAnswer:
    family, is_sdxl = endpoint.family, endpoint.family is Engine.SDXL
    sampler, steps, cfg_scale = _RECOMMENDED[family]
    side = sizes.DEFAULT_PX[family]
    return EngineAnswer(
        name=name,
        family=family,
        checkpoint_engine=endpoint.checkpoint_engine,
        default_checkpoint=endpoint.default_checkpoint,
        available=available,
        has_controlnet=endpoint.controlnet_engine is not None,
        has_refiner=is_sdxl and refines,
        sizes=[Size(width=width, height=height) for width, height in sorted(sizes.ALLOWED[family])],
        samplers=list(Sampler),
        style_presets=["base", *styles.table()] if is_sdxl else [],
        recommended=Recommended(sampler=sampler, steps=steps, cfg_scale=cfg_scale, width=side, height=side),
        limits=Limits(
            steps=int(_most("steps")),
            num_images=int(_most("num_images")),
            loras=int(_most("loras")),
            cfg_scale=_most("cfg_scale"),
            variants=MOST_VARIANTS,
            body_bytes=settings.max_body_bytes,
        ),
    )


def _most(field: str) -> float:
    """Return the largest value, or number of values, that the request's schema allows for a field."""
    found = GenerateRequest.model_fields[field].metadata
    [limit] = [bound.le if isinstance(bound, Le) else bound.max_length for bound in found if isinstance(bound, Le | MaxLen)]
    return cast("float", limit)
