"""What an image request comes down to: everything that determines its pictures. Stored with it, read by the worker."""

from typing import Literal

from pydantic import BaseModel

from shared.engines import Engine


class ModelRef(BaseModel):
    """A checkpoint or LoRA by its bytes."""

    name: str
    asset_id: str
    blob_key: str
    sha256: str


class LoraRef(ModelRef):
    """A LoRA and its weight."""

    weight: float


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


class Picture(BaseModel):
    """A picture in the store."""

    key: str
    seed: int


class Result(BaseModel):
    """What a worker made of it."""

    pictures: list[Picture]
    prediction_time_ms: float
    notices: list[str]
