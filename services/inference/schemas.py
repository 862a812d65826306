"""The body and the answer of `/generate`, as OctoAI's clients send and read them."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_SEED = 2**32 - 1
Prompt = Annotated[str, StringConstraints(max_length=10_000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Sampler(StrEnum):
    """The names that OctoAI gave its samplers; `docs/api.md` has the class behind each."""

    PNDM = "PNDM"
    LMS = "LMS"
    KLMS = "KLMS"
    DDIM = "DDIM"
    DDPM = "DDPM"
    HEUN = "HEUN"
    K_HEUN = "K_HEUN"
    K_EULER = "K_EULER"
    K_EULER_ANCESTRAL = "K_EULER_ANCESTRAL"
    DPM_SOLVER_MULTISTEP = "DPM_SOLVER_MULTISTEP"
    DPM_PLUS_PLUS_2M_KARRAS = "DPM_PLUS_PLUS_2M_KARRAS"
    DPM_SINGLE = "DPM_SINGLE"
    DPM_2 = "DPM_2"
    DPM_2_ANCESTRAL = "DPM_2_ANCESTRAL"
    DPM_PLUS_PLUS_SDE_KARRAS = "DPM_PLUS_PLUS_SDE_KARRAS"
    UNI_PC = "UNI_PC"
    LCM = "LCM"


class GenerateRequest(BaseModel):
    """What to draw. A field that is unknown is a mistake of the caller's, and is said so."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"prompt": "a lighthouse in the snow"},
                {
                    "prompt": "a lighthouse, watercolour",
                    "negative_prompt": "people",
                    "loras": {"watercolour": 0.9},
                    "width": 512,
                    "height": 512,
                    "steps": 20,
                    "cfg_scale": 7.5,
                    "seed": 7,
                    "num_images": 2,
                    "image_encoding": "png",
                },
            ]
        },
    )

    prompt: Prompt
    negative_prompt: Prompt | None = None
    prompt_2: Prompt | None = None
    negative_prompt_2: Prompt | None = None
    checkpoint: str | None = Field(default=None, description="Name or id of a checkpoint; `octoai:NAME` for a public one.")
    loras: dict[str, float] | None = Field(default=None, description="Weight of each LoRA, by its name or id.")
    sampler: Sampler | None = Sampler.DDIM
    width: int | None = None
    height: int | None = None
    cfg_scale: float = Field(default=12.0, ge=0, le=50, description="Guidance scale (Ho & Salimans 2022).")
    steps: int = Field(default=30, ge=1, le=200)
    num_images: int = Field(default=1, ge=1, le=16)
    seed: Seed | list[Seed | None] | None = None
    image_encoding: Literal["jpeg", "png"] = "jpeg"
    # Sent by OctoAI's clients always; none of them changes a picture here.
    use_refiner: bool | None = None
    high_noise_frac: float | None = None
    style_preset: str | None = None
    enable_safety: bool | None = None
    log_prompt: bool | None = None
    force_asset_download: bool | None = None
    force_asset_gpu_copy: bool | None = None
    # Part of OctoAI's API, but not served here; each would change the picture, so none is passed over in silence.
    vae: str | None = None
    controlnet: str | None = None
    textual_inversions: dict[str, str] | None = None
    init_image: str | None = None
    strength: float | None = None
    mask_image: str | None = None
    inpaint_full_res: bool | None = None
    inpaint_full_res_padding: int | None = None
    outpainting: bool | None = None
    controlnet_image: str | None = None
    controlnet_conditioning_scale: float | None = None
    controlnet_early_stop: float | None = None
    controlnet_preprocess: bool | None = None
    clip_skip: int | None = None
    transfer_images: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> "GenerateRequest":
        if (self.width is None) != (self.height is None):
            msg = "width and height: give both or none"
            raise ValueError(msg)
        if isinstance(self.seed, list) and len(self.seed) > self.num_images:
            msg = f"seed: {len(self.seed)} seeds for {self.num_images} images"
            raise ValueError(msg)
        return self


NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "vae": (None, ""),
    "controlnet": (None, ""),
    "textual_inversions": (None, {}),
    "init_image": (None, ""),
    "mask_image": (None, ""),
    "outpainting": (None, False),
    "controlnet_image": (None, ""),
    "clip_skip": (None,),
    "transfer_images": (None, {}),
    "style_preset": (None, "", "base"),
}
"""Fields that are not served yet, with the values that ask for nothing."""


class Image(BaseModel):
    """One picture, base 64 without a prefix."""

    image_b64: str | None
    removed_for_safety: bool
    seed: int
    safety_score: float | None


class GenerateAnswer(BaseModel):
    """The pictures, in the order of their seeds, and how long they took to draw."""

    images: list[Image]
    prediction_time_ms: float
