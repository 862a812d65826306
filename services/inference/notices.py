"""Notices about fields that are accepted but have no effect on this request."""

from services.inference.endpoints import Endpoint
from services.inference.schemas import GenerateRequest
from shared.engines import Engine

_SDXL_ONLY = ("prompt_2", "negative_prompt_2", "style_preset", "use_refiner")
_NEEDS: dict[str, tuple[str, ...]] = {
    "strength": ("init_image",),
    "inpaint_full_res": ("mask_image", "outpainting"),
    "inpaint_full_res_padding": ("inpaint_full_res",),
}
"""Fields that have an effect only if at least one of the others is given."""
_CONTROL = ("controlnet_conditioning_scale", "controlnet_early_stop", "controlnet_preprocess")


def unused_fields(endpoint: Endpoint, body: GenerateRequest) -> list[str]:
    """Return a notice for each field that was set to something other than its default and has no effect."""
    chosen = {name for name in body.model_fields_set if getattr(body, name) != type(body).model_fields[name].default}
    notices = [
        f"{name}: ignored, because only SDXL uses it"
        for name in _SDXL_ONLY
        if endpoint.family is not Engine.SDXL and name in _sdxl_fields(body)
    ]
    notices += [
        f"{name}: has no effect without {' or '.join(needed)}"
        for name, needed in _NEEDS.items()
        if name in chosen and not any(getattr(body, other) for other in needed)
    ]
    if endpoint.controlnet_engine is None:
        notices += [f"{name}: has no effect without a ControlNet" for name in _CONTROL if name in chosen]
    if body.enable_safety is False:
        notices.append("enable_safety: ignored, because the operator decides whether images are checked")
    if body.log_prompt is not None:
        notices.append("log_prompt: ignored, because prompts are never logged")
    notices += [
        f"{name}: has no effect, because assets are identified by their bytes"
        for name in ("force_asset_download", "force_asset_gpu_copy")
        if getattr(body, name)
    ]
    return notices


def _sdxl_fields(body: GenerateRequest) -> set[str]:
    """Return the SDXL-only fields that ask for something; OctoAI's first client always sends `style_preset: base`."""
    return {name for name in _SDXL_ONLY if getattr(body, name) not in {None, "", "base", False}}
