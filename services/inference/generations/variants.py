"""Turns one request with variants into a request for each, and says how each is recorded."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from services.inference.generations.schemas import CreateGenerations, Group
from services.inference.images import FIELDS
from services.inference.inputs import Inputs
from services.inference.resolve import choose_seeds
from services.inference.schemas import GenerateRequest
from shared.errors import InvalidError, NotSupportedError

_IGNORED = ("enable_safety", "log_prompt", "force_asset_download", "force_asset_gpu_copy", "transfer_images")
"""Fields that change no image and are not recorded."""
Loc = tuple[str | int, ...]


def requests(body: CreateGenerations) -> list[GenerateRequest]:
    """Return the request of each variant. In a group, those that name no seed get the same ones.

    Raises NotSupportedError, InvalidError for a variant with an image, and RequestValidationError for a wrong field.
    """
    if body.request.transfer_images:
        msg = "request.transfer_images: Photo Merge is not offered here; leave the field out"
        raise NotSupportedError(msg)
    made = [_changed(body.request, variant, where(body, number)) for number, variant in enumerate(body.variants or [{}])]
    if body.group is not None:
        seeds = choose_seeds(body.request.seed, max(request.num_images or 1 for request in made))
        own = [request.seed is not None and "seed" in (body.variants or [{}])[number] for number, request in enumerate(made)]
        made = [
            request if has_own else request.model_copy(update={"seed": seeds[: request.num_images or 1]})
            for request, has_own in zip(made, own, strict=True)
        ]
    return made


def where(body: CreateGenerations, number: int) -> Loc:
    """Return the place of a variant in the body, for errors."""
    return ("body", "variants", number) if body.variants else ("body", "request")


def cell(group: Group | None, position: int) -> list[int] | None:
    """Return the place of a variant in its group: on each axis of a grid, else in the list."""
    if group is None:
        return None
    if group.kind == "ab" or not group.axes:
        return [position]
    place: list[int] = []
    for axis in group.axes:
        position, index = divmod(position, len(axis.values))
        place.append(index)
    return place


def recorded(request: GenerateRequest, inputs: Inputs) -> dict[str, Any]:
    """Return the request as it is kept: with what was chosen for it, and without its images."""
    asked = request.model_dump(mode="json", exclude_unset=True, exclude={*FIELDS, *_IGNORED})
    seeds = inputs.seeds
    chosen = {
        "checkpoint": inputs.base.name,
        "sampler": inputs.sampler,
        "steps": inputs.steps,
        "cfg_scale": inputs.cfg_scale,
        "width": inputs.width,
        "height": inputs.height,
        "num_images": len(seeds),
        "image_encoding": inputs.image_encoding,
        "seed": seeds[0] if len(seeds) == 1 else seeds,
    }
    if inputs.start is not None:
        chosen["strength"] = inputs.start.strength
    return {name: value for name, value in asked.items() if value is not None} | chosen


def _changed(request: GenerateRequest, variant: dict[str, Any], loc: Loc) -> GenerateRequest:
    for field in FIELDS:
        if field in variant:
            msg = f"{field}: the variants have the same images; send it in `request`"
            raise InvalidError(msg, loc=(*loc, field))
    if not variant:
        return request
    fields = request.model_dump(exclude_unset=True) | variant
    try:
        return GenerateRequest.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": (*loc, *one["loc"])} for one in found]) from None
