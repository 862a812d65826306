"""Request and response bodies, in the shapes that OctoAI's published clients expect."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

TransferType = Literal["presigned-url", "sts", "gcp-oauth", "any"]
NAME_PATTERN = "^[a-zA-Z0-9_-]+$"
MAX_NAME = 200


def _or_empty(value: object) -> object:
    return "" if value is None else value


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
    asset_type: str = Field(description="`file`, `lora`, `checkpoint`, `vae` or `textual_inversion`.")
    data: dict[str, Any] = Field(
        description="By asset type: `file_format`; for weights `engine`, `data_type`, `file_format`, `trigger_words`."
    )
    description: Annotated[str, BeforeValidator(_or_empty)] = Field(default="", max_length=10_000)
    is_public: Annotated[bool, BeforeValidator(lambda value: value or False)] = Field(
        default=False, description="Whether every account may use it; needs the scope `admin`."
    )
    transfer_api_type: TransferType | None = Field(
        default=None,
        description="`sts` returns credentials for the one object, if the store grants them; any other value a presigned URL.",
    )
    url: str | None = Field(
        default=None,
        min_length=1,
        max_length=2083,
        description="A URL from which the server fetches the file; nothing is uploaded then.",
    )
    hf_repo: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A model repository (`owner/name`) from which the server fetches the file; nothing is uploaded then.",
    )
    hf_token_secret: SecretStr | None = Field(
        default=None,
        max_length=500,
        description="A token for a gated or private `hf_repo`; kept in memory until the import ends, and never stored.",
    )
    size_bytes: int | None = Field(
        default=None,
        gt=0,
        le=2**40,
        description="The size of the upload, which must not be larger. Without it, the largest size of its type is reserved.",
    )
    skip_validation: Annotated[bool, BeforeValidator(lambda value: value or False)] = Field(
        default=False, description="Has no effect: every upload is checked."
    )

    @property
    def is_import(self) -> bool:
        """Whether the server fetches the file."""
        return self.url is not None or self.hf_repo is not None


class AssetOut(BaseModel):
    """An asset, as every response shows it."""

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


class PresignedTransfer(BaseModel):
    """PUT the bytes to `put_url`, which needs no header; GET them from `get_url`.

    A URL that the asset's status does not allow is empty.
    """

    type: Literal["presigned-url"] = "presigned-url"
    put_url: str = ""
    get_url: str = ""


class StsTransfer(BaseModel):
    """Credentials for a single object of the S3 store at `s3_endpoint_url`."""

    type: Literal["sts"] = "sts"
    aws_region: str
    aws_access_key_id: str
    aws_secret_access_key: str
    aws_session_token: str | None
    s3_bucket: str
    s3_key: str
    s3_url: str
    s3_endpoint_url: str | None


class NoTransfer(BaseModel):
    """There is nothing to upload: the server fetches the file."""

    type: Literal["none"] = "none"


Transfer = Annotated[PresignedTransfer | StsTransfer | NoTransfer, Field(discriminator="type")]


class AssetCreated(BaseModel):
    """The response to `POST /v1/assets`."""

    asset: AssetOut
    token: str = ""
    transfer_api: Transfer


class AssetAnswer(BaseModel):
    """The response to `GET /v1/assets/{...}`."""

    asset: AssetOut
    transfer_api: Transfer


class AssetList(BaseModel):
    """A page of assets, newest first; `total` counts all that match."""

    data: list[AssetOut]
    has_more: bool
    total: int


class UploadCompleted(BaseModel):
    """The response to `complete-upload`. An upload with an error gets a 422 instead."""

    error: None = None


class AssetDeleted(BaseModel):
    """The response to `DELETE`."""

    id: str
    deleted_at: datetime


class Download(BaseModel):
    """The response to `GET /v1/assets/{...}/download`: a URL that needs no key until it expires."""

    url: str
    file_name: str
    size_bytes: int
