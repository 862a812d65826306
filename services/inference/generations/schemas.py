"""The bodies and the answers of `/v1/generations` and `/v1/engines`."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from services.inference.schemas import GenerateRequest, Sampler
from shared.engines import Engine

MOST_VARIANTS = 64
_MOST_AXES = 2
_MOST_LABELS_BYTES = 16 * 1024
_STORABLE = r"^[^\x00]*$"
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=_STORABLE)]


class Axis(BaseModel):
    """One axis of a grid: what changes along it, and its values in order. Both are labels; `variants` has the requests."""

    model_config = ConfigDict(extra="forbid")

    field: FieldName = Field(description="What changes, such as `loras` or `steps`.")
    values: list[JsonValue] = Field(min_length=1, max_length=MOST_VARIANTS, description="The values, in the order of the cells.")


class Group(BaseModel):
    """What the variants are together. The images of a group have the same seeds."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["ab", "grid"] = Field(description="`ab` compares variants one by one; `grid` lays them out along the axes.")
    axes: list[Axis] = Field(
        default_factory=list[Axis],
        max_length=_MOST_AXES,
        description="The axes of a grid. Variants are listed row by row: the first axis changes fastest.",
    )


class CreateGenerations(BaseModel):
    """One request for images, or variants of it. All of them are taken, or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"engine": "sd", "request": {"prompt": "a lighthouse in the snow", "steps": 20, "cfg_scale": 7}},
                {
                    "engine": "sd",
                    "request": {"prompt": "a watercolour of a dog", "seed": 7, "loras": {"watercolour": 1.0}},
                    "variants": [{"loras": {"watercolour": 0.0}}, {}],
                    "group": {"kind": "ab"},
                },
            ]
        },
    )

    engine: Annotated[str, StringConstraints(max_length=50)] = Field(description="An engine of `GET /v1/engines`.")
    request: GenerateRequest
    variants: list[dict[FieldName, JsonValue]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_VARIANTS,
        description="Each is the request with these fields changed. Its images cannot be changed.",
    )
    group: Group | None = None

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        if self.group is None:
            return self
        cells, count = 1, len(self.variants) if self.variants else 1
        for axis in self.group.axes:
            cells *= len(axis.values)
        if self.group.kind == "grid" and cells != count:
            msg = f"group.axes: have {cells} cells for {count} variants; send one variant for each cell"
            raise ValueError(msg)
        if len(self.group.model_dump_json()) > _MOST_LABELS_BYTES:
            msg = f"group.axes: the values have more than {_MOST_LABELS_BYTES} bytes; send shorter labels"
            raise ValueError(msg)
        return self


class ChangeGeneration(BaseModel):
    """What can be changed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"starred": True}]})

    starred: bool = Field(description="A star keeps the images until it is taken away.")


class Status(StrEnum):
    """How far a generation is. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class InputImages(BaseModel):
    """URLs of the images that came with the request; null where there was none, or it is deleted."""

    init_image_url: str | None = None
    mask_url: str | None = None
    controlnet_image_url: str | None = None


class GeneratedImage(BaseModel):
    """One image. Its URLs are null where the safety checker removed it, and once it is deleted."""

    number: int
    seed: int
    url: str | None
    thumbnail_url: str | None = Field(description="A WebP of at most 384 px.")
    width: int
    height: int
    removed_for_safety: bool
    safety_score: float | None


class UsedModel(BaseModel):
    """A model that the images were drawn with, as it was when the request was taken."""

    name: str
    kind: Literal["checkpoint", "lora", "textual_inversion", "vae", "controlnet", "refiner"]
    weight: float | None
    sha256: str
    exists: bool = Field(description="Whether the asset is still in the library.")


class GenerationError(BaseModel):
    """Why there are no images."""

    code: str
    message: str


class Generation(BaseModel):
    """A request for images, how far it is, and what came of it."""

    id: str
    group_id: str | None = Field(description="Shared by the generations of one `POST` with variants.")
    group: Group | None
    cell: list[int] | None = Field(description="The place in its group: for a grid, the index on each axis.")
    engine: str
    status: Status
    request: dict[str, Any] = Field(
        description="The request without its images, with the seeds that were chosen: sent again, it gives the same images."
    )
    inputs: InputImages
    images: list[GeneratedImage]
    notices: list[str]
    error: GenerationError | None
    models: list[UsedModel]
    versions: dict[str, str] = Field(description="The releases of the libraries that drew the images.")
    prediction_time_ms: float | None
    ahead: int | None = Field(description="How many waiting requests of the account come before this one; null once it is drawn.")
    created_at: datetime
    finished_at: datetime | None
    kept_until: datetime | None = Field(description="When the images are deleted; null before they are there, and with a star.")
    starred: bool


class Created(BaseModel):
    """What was taken, in the order of the variants."""

    group_id: str | None
    data: list[Generation]


class GenerationList(BaseModel):
    """A page of the history, newest first; the next page comes `before` its last one."""

    data: list[Generation]
    has_more: bool


class Progress(BaseModel):
    """The event `progress` of the stream."""

    id: str
    status: Status
    step: int = Field(description="Steps done, of all images together.")
    steps: int = Field(description="All steps; 0 while they are not known.")
    ahead: int | None
    preview: str | None = Field(description="The image as it is now: a small JPEG as a data URL.")


class Size(BaseModel):
    """In pixels."""

    width: int
    height: int


class Recommended(BaseModel):
    """Values that suit the engine. They are not the defaults of `/generate`, which are OctoAI's."""

    sampler: Sampler
    steps: int
    cfg_scale: float
    width: int
    height: int


class Limits(BaseModel):
    """The largest values that a request may have."""

    steps: int
    num_images: int
    loras: int
    cfg_scale: float
    variants: int
    body_bytes: int


class EngineAnswer(BaseModel):
    """An engine that requests can name."""

    name: str
    family: Engine
    checkpoint_engine: Engine
    default_checkpoint: str
    available: bool = Field(description="Whether the default checkpoint is registered; other checkpoints can be named anyway.")
    has_controlnet: bool
    has_refiner: bool
    sizes: list[Size]
    samplers: list[Sampler]
    style_presets: list[str]
    recommended: Recommended
    limits: Limits


class EngineList(BaseModel):
    """The engines, in the order to offer them."""

    data: list[EngineAnswer]
