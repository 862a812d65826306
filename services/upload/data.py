"""The field `data` of an asset as a client sends it, by asset type. Intake adds what it reads from the file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.engines import Engine
from shared.errors import InvalidError

Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[list[Word], Field(max_length=20)]


def _no_pickle(value: object) -> object:
    if value == "pt":
        msg = "a pt file is a pickle, which this server does not load; convert it to safetensors"
        raise ValueError(msg)
    return value


def _images_only(value: object) -> object:
    if value in {"txt", "mp3", "wav", "jsonl"}:
        msg = f"an asset of type file is an image, not {value}; use png or jpg"
        raise ValueError(msg)
    # What is stored is PNG or JPEG; clients that know no others must be able to read the answer.
    return "unknown" if value in {None, "webp", "avif", "heic", "heif"} else value


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")


class FileData(_Data):
    """An image. Intake sets its true format, and adds its size in pixels."""

    asset_type: Literal["file"] = "file"
    file_format: Annotated[Literal["unknown", "png", "jpg", "jpeg"], BeforeValidator(_images_only)] = "unknown"
    preview_url: Annotated[None, BeforeValidator(lambda _value: None)] = None
    version: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = Field(default="", max_length=200)


class _WeightsData(_Data):
    """Weights. Intake checks the engine and sets the true data type."""

    engine: Engine
    file_format: Annotated[Literal["safetensors"], BeforeValidator(_no_pickle)] = "safetensors"
    data_type: Literal["fp16", "fp32", "int4", "int8"] = "fp16"


class LoraData(_WeightsData):
    """A LoRA: its trigger words, and its base checkpoint if that is known."""

    asset_type: Literal["lora"] = "lora"
    trigger_words: Words | None = None
    checkpoint: str | None = Field(default=None, max_length=300)


class CheckpointData(_WeightsData):
    """A checkpoint: one safetensors file, or an uncompressed tar of a folder in diffusers' layout."""

    asset_type: Literal["checkpoint"] = "checkpoint"


class VaeData(_WeightsData):
    """A VAE."""

    asset_type: Literal["vae"] = "vae"


class TextualInversionData(_WeightsData):
    """A textual inversion: the words that select its embedding in a prompt."""

    asset_type: Literal["textual_inversion"] = "textual_inversion"
    trigger_words: Annotated[Words, BeforeValidator(lambda value: [] if value is None else value)] = Field(default_factory=list)


DATA_BY_TYPE: dict[str, type[_Data]] = {
    "file": FileData,
    "lora": LoraData,
    "checkpoint": CheckpointData,
    "vae": VaeData,
    "textual_inversion": TextualInversionData,
}


def checked_data(asset_type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return `data` as it will be stored, with defaults. Raises InvalidError, which names the wrong field."""
    kind = DATA_BY_TYPE.get(asset_type)
    if kind is None:
        msg = f"asset_type: {asset_type!r} is not supported; choose from {', '.join(DATA_BY_TYPE)}"
        raise InvalidError(msg, loc=("body", "asset_type"), kind="enum")
    try:
        checked = kind.model_validate({"asset_type": asset_type} | data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidError(first["msg"], loc=("body", "data", *first["loc"]), kind=first["type"]) from error
    return checked.model_dump(mode="json")
