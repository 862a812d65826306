"""What a caller should know of fields that are accepted and do not do what they say here."""

from services.inference.endpoints import Path
from services.inference.schemas import GenerateRequest
from shared.engines import Engine

_SDXL_ONLY = ("prompt_2", "negative_prompt_2", "style_preset", "use_refiner")
_NEEDS: dict[str, tuple[str, ...]] = {
    "strength": ("init_image",),
    "inpaint_full_res": ("mask_image", "outpainting"),
    "inpaint_full_res_padding": ("inpaint_full_res",),
}
"""Fields that mean nothing unless one of others is given."""
_CONTROL = ("controlnet_conditioning_scale", "controlnet_early_stop", "controlnet_preprocess")


def of_fields(path: Path, body: GenerateRequest) -> list[str]:
    """Return a notice for each field that was set to something other than its default and changes nothing."""
    chosen = {name for name in body.model_fields_set if getattr(body, name) != type(body).model_fields[name].default}
    notices = [
        f"{name}: for SDXL alone; left out" for name in _SDXL_ONLY if path.family is not Engine.SDXL and name in _asked(body)
    ]
    notices += [
        f"{name}: means nothing without {' or '.join(needed)}"
        for name, needed in _NEEDS.items()
        if name in chosen and not any(getattr(body, other) for other in needed)
    ]
    if path.controlnet_engine is None:
        notices += [f"{name}: means nothing without a ControlNet" for name in _CONTROL if name in chosen]
    if body.enable_safety is False:
        notices.append("enable_safety: whether pictures are checked is the operator's choice")
    if body.log_prompt is not None:
        notices.append("log_prompt: prompts are never logged")
    notices += [
        f"{name}: changes nothing, since assets are known by their bytes"
        for name in ("force_asset_download", "force_asset_gpu_copy")
        if getattr(body, name)
    ]
    return notices


def _asked(body: GenerateRequest) -> set[str]:
    return {name for name in _SDXL_ONLY if getattr(body, name) not in {None, "", "base", False}}
