"""What clients send and get, as OctoAI's published clients know it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shared.engines import Engine

AssetType = Literal["file", "lora", "checkpoint"]
TransferType = Literal["presigned-url", "sts", "gcp-oauth", "any"]
NAME_PATTERN = "^[a-zA-Z0-9_-]+$"
MAX_NAME = 200


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")


class FileData(_Data):
    """What a client may say of a picture; intake puts the true format in."""

    asset_type: Literal["file"] = "file"
    file_format: Literal["unknown", "png", "jpg", "jpeg"] = "unknown"
    preview_url: Annotated[None, BeforeValidator(lambda _value: None)] = None
    version: str = ""


class _WeightsData(_Data):
    """What a client says of weights; intake checks the engine and puts the true types in."""

    engine: Engine
    file_format: Literal["safetensors"] = "safetensors"
    data_type: Literal["fp16", "fp32"] = "fp16"


class LoraData(_WeightsData):
    """A LoRA: its trigger words, and the base checkpoint where it is known."""

    asset_type: Literal["lora"] = "lora"
    trigger_words: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(default=None, max_length=20)
    checkpoint: str | None = Field(default=None, max_length=300)


class CheckpointData(_WeightsData):
    """A checkpoint, sent as an uncompressed tar of its folder in diffusers' layout."""

    asset_type: Literal["checkpoint"] = "checkpoint"


DATA_BY_TYPE: dict[str, type[_Data]] = {"file": FileData, "lora": LoraData, "checkpoint": CheckpointData}


class AssetCreate(BaseModel):
    """The body of `POST /v1/assets`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "beach", "asset_type": "file", "data": {"asset_type": "file"}, "description": "The dog on the beach."},
                {
                    "name": "brush",
                    "asset_type": "lora",
                    "data": {"asset_type": "lora", "engine": "image/stable-diffusion-v1-5", "file_format": "safetensors"},
                },
            ]
        }
    )

    name: str = Field(pattern=NAME_PATTERN, max_length=MAX_NAME, description="Unique in the account.")
    asset_type: str = Field(description="`file`, `lora` or `checkpoint`.")
    data: dict[str, Any] = Field(description="By asset type; see FileData, LoraData and CheckpointData.")
    description: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = Field(
        default="", max_length=10_000
    )
    is_public: Annotated[bool, BeforeValidator(lambda value: value or False)] = Field(
        default=False, description="Whether every account may use it; needs the scope `admin`."
    )
    transfer_api_type: TransferType | None = Field(default=None, description="Answered with `presigned-url`, always.")
    url: str | None = Field(default=None, description="Not supported yet: the server fetches nothing.")
    hf_repo: str | None = Field(default=None, description="Not supported yet: the server fetches nothing.")


class AssetOut(BaseModel):
    """An asset, as every answer shows it."""

    id: str
    asset_type: str
    name: str
    description: str
    size_bytes: int
    status: str = Field(description="ready_to_upload, uploaded, then ready, rejected or error.")
    status_details: str
    status_info: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    data: dict[str, Any]
    tenant_uuid: UUID
    is_public: bool
    file_structure: Literal["single_file"] = "single_file"
    hf_repo: str | None = None
    url: str | None = None


class Transfer(BaseModel):
    """How the bytes are moved: PUT them to `put_url`, without any header of ours; GET them from `get_url`.

    A URL that makes no sense in the asset's state is empty.
    """

    type: Literal["presigned-url"] = "presigned-url"
    put_url: str = ""
    get_url: str = ""


class AssetCreated(BaseModel):
    """The answer to `POST /v1/assets`."""

    asset: AssetOut
    token: str = ""
    transfer_api: Transfer


class AssetAnswer(BaseModel):
    """The answer to `GET /v1/assets/{...}`."""

    asset: AssetOut
    transfer_api: Transfer


class AssetList(BaseModel):
    """A page of assets, newest first; `total` counts all that match."""

    data: list[AssetOut]
    has_more: bool
    total: int


class UploadCompleted(BaseModel):
    """The answer to `complete-upload`; what is wrong with an upload is a 422 instead."""

    error: None = None


class AssetDeleted(BaseModel):
    """The answer to `DELETE`."""

    id: str
    deleted_at: datetime
