"""Bodies and answers about datasets."""

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.scheduler.schemas import MAX_FILES, Caption
from shared.states import ClientStatus

MAX_SETTINGS_BYTES = 16 * 1024
MAX_VERSION = 2**31 - 1
Short = Annotated[str, StringConstraints(max_length=200)]


def _fits(settings: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(settings))
    if size > MAX_SETTINGS_BYTES:
        msg = f"the settings have {size} bytes as JSON, and the limit is {MAX_SETTINGS_BYTES}; keep less in them"
        raise ValueError(msg)
    return settings


class DatasetFile(BaseModel):
    """An image of a dataset, with the name of the file that it was uploaded from."""

    model_config = ConfigDict(extra="forbid")

    file_id: Short
    file_name: Short = ""
    caption: Caption = ""


class DatasetBody(BaseModel):
    """What a dataset holds. Every field may be empty: it is saved while it is being made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "dog-sks1",
                    "trigger_word": "sks1",
                    "subject_class": "dog",
                    "files": [
                        {
                            "file_id": "asset_01hf3a2qw7ek6vshbhd9c9yywd",
                            "file_name": "beach.jpg",
                            "caption": "a photo of a sks1 dog on a beach",
                        }
                    ],
                    "settings": {"steps": 500},
                }
            ]
        },
    )

    name: Short = ""
    trigger_word: Short = ""
    subject_class: Short = Field(default="", description="What the subject is, such as `dog`.")
    files: list[DatasetFile] = Field(default_factory=list[DatasetFile], max_length=MAX_FILES)
    settings: Annotated[dict[str, Any], AfterValidator(_fits)] = Field(
        default_factory=dict[str, Any], description="Whatever the client keeps beside them, up to 16 KiB as JSON."
    )


class DatasetTune(BaseModel):
    """A tune that was started from the dataset."""

    id: str
    name: str
    status: ClientStatus


class DatasetAnswer(DatasetBody):
    """A dataset. A change names its `version` in `If-Match`."""

    id: str
    version: int
    created_at: datetime
    updated_at: datetime
    tunes: list[DatasetTune] = Field(description="The tunes that were started from it, newest first.")


class DatasetList(BaseModel):
    """A page of datasets, the last changed first."""

    data: list[DatasetAnswer]
    has_more: bool
    total: int
