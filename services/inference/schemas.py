"""The body and the responses of `/generate`, as OctoAI's clients send and read them."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_SEED = 2**32 - 1
_STORABLE = r"^[^\x00]*$"
"""PostgreSQL's text and JSON hold every character except NUL."""
Prompt = Annotated[str, StringConstraints(max_length=10_000, pattern=_STORABLE)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Key = Annotated[str, StringConstraints(max_length=200, pattern=_STORABLE)]
Weight = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Trigger = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s\x00]+$")]
_MOST_ADAPTERS = 16
_ASSET = "by name or id; `octoai:NAME` for a public one"


class Sampler(StrEnum):
    """OctoAI's names for its samplers, and `TCD`; `docs/api.md` lists the class for each."""

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
    DPM_PLUS_PLUS_2M_SDE = "DPM_PLUS_PLUS_2M_SDE"
    DPM_PLUS_PLUS_2M_SDE_KARRAS = "DPM_PLUS_PLUS_2M_SDE_KARRAS"
    DPM_SINGLE = "DPM_SINGLE"
    DPM_2 = "DPM_2"
    DPM_2_KARRAS = "DPM_2_KARRAS"
    DPM_2_ANCESTRAL = "DPM_2_ANCESTRAL"
    DPM_2_ANCESTRAL_KARRAS = "DPM_2_ANCESTRAL_KARRAS"
    DPM_PLUS_PLUS_SDE_KARRAS = "DPM_PLUS_PLUS_SDE_KARRAS"
    UNI_PC = "UNI_PC"
    LCM = "LCM"
    TCD = "TCD"


class GenerateRequest(BaseModel):
    """What to draw. An unknown field is refused."""

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

    prompt: Prompt = Field(description="What to draw. `(word:1.5)` counts more, `[word]` less. Long prompts are not cut.")
    negative_prompt: Prompt | None = Field(default=None, description="What the images should not show.")
    prompt_2: Prompt | None = Field(default=None, description="SDXL: the prompt of the second text encoder.")
    negative_prompt_2: Prompt | None = Field(default=None, description="SDXL: the negative prompt of the second encoder.")
    checkpoint: Key | None = Field(default=None, description=f"The checkpoint, {_ASSET}.")
    vae: Key | None = Field(default=None, description=f"A VAE that replaces the checkpoint's own, {_ASSET}.")
    loras: dict[Key, Weight] | None = Field(
        default=None, max_length=_MOST_ADAPTERS, description=f"The weight of each LoRA; the key names the LoRA, {_ASSET}."
    )
    textual_inversions: dict[Key, Trigger] | None = Field(
        default=None,
        max_length=_MOST_ADAPTERS,
        description=f"The prompt word for each textual inversion; the key names the textual inversion, {_ASSET}.",
    )
    sampler: Sampler | None = Field(default=Sampler.DDIM, description="The method that removes the noise.")
    width: int | None = Field(default=None, description="In pixels. Width and height must be one of the engine's pairs.")
    height: int | None = Field(default=None, description="In pixels.")
    cfg_scale: float | None = Field(default=12.0, ge=0, le=50, description="Guidance scale (Ho & Salimans 2022).")
    steps: int | None = Field(default=30, ge=1, le=200, description="Steps of the sampler.")
    num_images: int | None = Field(default=1, ge=1, le=16, description="Number of images.")
    seed: Seed | list[Seed | None] | None = Field(
        default=None,
        description="A number s gives image i the seed s + i; a list gives each image its own, random where null or missing.",
    )
    init_image: str | None = Field(default=None, description="The image to start from: a JPEG or PNG, base64-encoded.")
    strength: float | None = Field(default=0.8, ge=0, le=1, description="How much of init_image is redrawn, from 0 to 1.")
    mask_image: str | None = Field(default=None, description="A mask for init_image, base64-encoded: white is painted.")
    inpaint_full_res: bool | None = Field(default=None, description="Paint only the masked part, at full resolution.")
    inpaint_full_res_padding: int | None = Field(
        default=32, ge=0, le=1024, description="Pixels around the masked part that the model sees with inpaint_full_res."
    )
    outpainting: bool | None = Field(
        default=None, description="Extend init_image: where mask_image is white or, without a mask, on all sides up to the size."
    )
    controlnet: Key | None = Field(default=None, description=f"The ControlNet, {_ASSET}. The default is the engine's canny.")
    controlnet_image: str | None = Field(default=None, description="The image that the ControlNet follows, base64-encoded.")
    controlnet_conditioning_scale: float | None = Field(
        default=1.0, ge=0, le=10, description="How strongly the images follow the ControlNet."
    )
    controlnet_early_stop: float | None = Field(
        default=None, ge=0, le=1, description="The share of the steps after which the ControlNet stops."
    )
    controlnet_preprocess: bool | None = Field(
        default=True, description="Find the edges of controlnet_image; send false if it is already prepared."
    )
    clip_skip: int | None = Field(default=None, ge=1, le=12, description="Use the n-th last layer of the text encoders.")
    use_refiner: bool | None = Field(default=None, description="SDXL: let the refiner finish the images, if one is registered.")
    high_noise_frac: float | None = Field(
        default=0.8, ge=0, le=1, description="The share of the noise that the base removes before the refiner."
    )
    style_preset: str | None = Field(default=None, description="SDXL: the name of a style; docs/api.md lists them.")
    image_encoding: Literal["jpeg", "png"] | None = "jpeg"
    # OctoAI's clients send these; none of them changes an image here.
    enable_safety: bool | None = Field(default=None, description="Accepted; the operator's safety checker runs regardless.")
    log_prompt: bool | None = Field(default=None, description="Accepted; prompts are never logged.")
    force_asset_download: bool | None = Field(default=None, description="Accepted; assets are identified by their bytes.")
    force_asset_gpu_copy: bool | None = Field(default=None, description="Accepted; assets are identified by their bytes.")
    transfer_images: dict[str, Any] | None = Field(default=None, description="Not supported.")

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.width is None) != (self.height is None):
            msg = "width, height: only one of them is set; set both or none"
            raise ValueError(msg)
        if isinstance(self.seed, list) and len(self.seed) > (self.num_images or 1):
            msg = f"seed: {len(self.seed)} seeds for {self.num_images or 1} images; send at most one for each image"
            raise ValueError(msg)
        if self.mask_image and not self.init_image:
            msg = "mask_image: needs init_image; send both"
            raise ValueError(msg)
        if self.outpainting and not self.init_image:
            msg = "outpainting: needs init_image, which it extends; send init_image"
            raise ValueError(msg)
        triggers = list((self.textual_inversions or {}).values())
        if len(set(triggers)) < len(triggers):
            msg = "textual_inversions: two have the same trigger word; use a word of its own for each"
            raise ValueError(msg)
        return self


class Image(BaseModel):
    """One image, base64 without a prefix; null where the safety checker removed it."""

    image_b64: str | None
    removed_for_safety: bool
    seed: int
    safety_score: float | None


class GenerateAnswer(BaseModel):
    """The images, in the order of their seeds, and how long they took."""

    images: list[Image]
    prediction_time_ms: float


class AsyncAnswer(BaseModel):
    """Where to ask whether the images are ready."""

    response_id: str
    poll_url: str


class PollAnswer(BaseModel):
    """`completed` once the images, or the error, can be fetched from `response_url`."""

    status: Literal["pending", "running", "completed"]
    response_url: str
