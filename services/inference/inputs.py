"""What determines the images of a request, and what a worker answers. Both are stored in the request's row.

Fields added later have defaults, so that older rows can still be drawn.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """A clean copy of an image that came with the request."""

    key: str
    width: int
    height: int


class Control(BaseModel):
    """A ControlNet, the image that it follows, how strongly, and for which share of the steps."""

    model: ModelRef
    image: ImageRef
    preprocess: Literal["canny"] | None
    scale: float
    early_stop: float | None


class Start(BaseModel):
    """What drawing starts from: image to image, or inpainting with a mask (white is painted) or around the image."""

    image: ImageRef
    strength: float
    mask: ImageRef | None = None
    full_res: bool = False
    full_res_padding: int = 32
    outpainting: bool = False


class Refine(BaseModel):
    """The refiner, and the share of the noise that the base removes before it."""

    model: ModelRef
    high_noise_frac: float


class Inputs(BaseModel):
    """The resolved request: every name is replaced by bytes, and every seed is chosen."""

    # The prompts must not appear in logs.
    model_config = ConfigDict(hide_input_in_errors=True)

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
    with_previews: bool = False
    """Whether the worker makes previews and thumbnails: a request of the history has them, one of `/generate` does not."""
    notices: list[str] = Field(default_factory=list)
    """The API's notices; the worker adds its own."""


@dataclass(frozen=True)
class DrawnImage:
    """An encoded image, or none where the safety checker removed it, with the checker's score."""

    data: bytes | None
    safety_score: float | None = None


@dataclass(frozen=True)
class Drawing:
    """The images of a request in the order of their seeds, notices, and how long the models took for them."""

    images: list[DrawnImage]
    notices: list[str]
    model_s: float


class StoredImage(BaseModel):
    """An image in the store; without a key where the safety checker removed it."""

    key: str | None
    thumbnail_key: str | None = None
    seed: int
    removed_for_safety: bool = False
    safety_score: float | None = None


class Result(BaseModel):
    """What a worker answers to a request."""

    # Stored rows have this key.
    pictures: list[StoredImage]
    prediction_time_ms: float
    notices: list[str]
    versions: dict[str, str] = Field(default_factory=dict)
    """The releases of the libraries that drew the images."""
