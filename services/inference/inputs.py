"""What an image request comes down to: everything that determines its pictures. Stored with it, read by the worker.

Fields that came later have defaults, so that a row written before them can still be drawn.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from shared.engines import Engine


class ModelRef(BaseModel):
    """A checkpoint or another model by its bytes."""

    name: str
    asset_id: str
    blob_key: str
    sha256: str


class LoraRef(ModelRef):
    """A LoRA and its weight."""

    weight: float


class EmbeddingRef(ModelRef):
    """A textual inversion and the word that stands for it in the prompts."""

    trigger: str


class ImageRef(BaseModel):
    """A clean copy of a picture that came with the request."""

    key: str
    width: int
    height: int


class Control(BaseModel):
    """A ControlNet, the picture that it follows, how strongly and for which share of the steps."""

    model: ModelRef
    image: ImageRef
    preprocess: Literal["canny"] | None
    scale: float
    early_stop: float | None


class Start(BaseModel):
    """What a picture starts from: image to image, or with a mask (white is painted) or a canvas to extend, inpainting."""

    image: ImageRef
    strength: float
    mask: ImageRef | None = None
    full_res: bool = False
    full_res_padding: int = 32
    outpainting: bool = False


class Refine(BaseModel):
    """The refiner, and the share of the noise that the base takes away before it."""

    model: ModelRef
    high_noise_frac: float


class Inputs(BaseModel):
    """The resolved request: names have become bytes, and every seed is drawn."""

    engine: Engine
    base: ModelRef
    loras: list[LoraRef]
    prompt: str
    negative_prompt: str
    prompt_2: str | None
    negative_prompt_2: str | None
    sampler: str
    width: int
    height: int
    cfg_scale: float
    steps: int
    seeds: list[int]
    image_encoding: Literal["jpeg", "png"]
    vae: ModelRef | None = None
    embeddings: list[EmbeddingRef] = Field(default_factory=list)
    clip_skip: int | None = None
    start: Start | None = None
    control: Control | None = None
    refine: Refine | None = None
    notices: list[str] = Field(default_factory=list)
    """What the API found worth saying; the worker adds its own."""


@dataclass(frozen=True)
class Drawn:
    """One encoded picture, or none where the safety checker removed it, with the checker's score."""

    data: bytes | None
    safety_score: float | None = None


class Picture(BaseModel):
    """A picture in the store; without a key where it was removed for safety."""

    key: str | None
    seed: int
    removed_for_safety: bool = False
    safety_score: float | None = None


class Result(BaseModel):
    """What a worker made of it."""

    pictures: list[Picture]
    prediction_time_ms: float
    notices: list[str]
