"""What each route answers to whom. A route of the API description that is missing here fails `tests/unit/test_routes.py`."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Route:
    """How the route is called on things of the account `owner`, and the status that each caller gets.

    In paths and bodies `{name}` stands for one of the owner's things: {asset_id}, {tune_id}, {dataset_id}, {lora_name},
    {response_id}, {generation_id}, {account_id}, {key_id}.
    """

    part: str
    """The scope that opens it; empty for a route that is open to all."""
    owner: int
    other: int
    """404 for a thing; 200 for a list, which must hold nothing of the owner's; 422 for a body that names the owner's things."""
    path: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    query: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    ended: bool = False
    """Whether the tune is cancelled first: the stream of a tune that runs never ends."""


_TUNE = {
    "name": "sealed-tune",
    "details": {
        "base_checkpoint": {"checkpoint_id": "octoai:tiny-sd15"},
        "files": [{"file_id": "{asset_id}"}],
        "steps": 1,
        "trigger_words": ["sks1"],
    },
}
_DATASET = {"name": "sealed", "trigger_word": "sks1"}
_GENERATION = {"engine": "sd", "request": {"prompt": "a dog", "loras": {"{lora_name}": 1.0}}}
_ASSET = {"name": "sealed", "asset_type": "file", "data": {"asset_type": "file"}}

ROUTES = {
    "GET /health": Route("", 200, 200),
    "POST /v1/assets": Route("assets", 200, 200, body=_ASSET),
    "GET /v1/assets": Route("assets", 200, 200),
    "GET /v1/assets/{asset_owner_and_name_or_id}": Route("assets", 200, 404, {"asset_owner_and_name_or_id": "{asset_id}"}),
    "GET /v1/assets/{asset_owner_and_name_or_id}/download": Route(
        "assets", 200, 404, {"asset_owner_and_name_or_id": "{asset_id}"}
    ),
    "DELETE /v1/assets/{asset_id}": Route("assets", 200, 404),
    "POST /v1/assets/{asset_id}/complete-upload": Route("assets", 200, 404),
    "POST /v1/tune": Route("tunes", 201, 422, body=_TUNE),
    "GET /v1/tunes": Route("tunes", 200, 200),
    "GET /v1/tune/{tune_id}": Route("tunes", 200, 404),
    "GET /v1/tune/{tune_id}/events": Route("tunes", 200, 404),
    "GET /v1/tune/{tune_id}/events/stream": Route("tunes", 204, 404, query={"after": 1000}, ended=True),
    "GET /v1/tune/{tune_id}/losses": Route("tunes", 200, 404),
    "GET /v1/tune/{tune_id}/samples": Route("tunes", 200, 404),
    "POST /v1/datasets": Route("tunes", 201, 201, body=_DATASET),
    "GET /v1/datasets": Route("tunes", 200, 200),
    "GET /v1/datasets/{dataset_id}": Route("tunes", 200, 404),
    "PUT /v1/datasets/{dataset_id}": Route("tunes", 200, 404, body=_DATASET, headers={"If-Match": "1"}),
    "DELETE /v1/datasets/{dataset_id}": Route("tunes", 204, 404),
    "GET /v1/tune/{tune_id}/webhook_deliveries": Route("tunes", 200, 404),
    "GET /v1/tunes/webhook-secret": Route("tunes", 200, 200),
    "POST /v1/tunes/webhook-secret/rotate": Route("tunes", 200, 200),
    "POST /v1/tune/{tune_id}/cancel": Route("tunes", 200, 404),
    "DELETE /v1/tune/{tune_id}": Route("tunes", 200, 404),
    "POST /generate/{engine}": Route("images", 200, 422, {"engine": "sd"}, {"prompt": "a dog", "loras": {"{lora_name}": 1.0}}),
    "GET /generate/responses/{response_id}": Route("images", 200, 404),
    "GET /generate/responses/{response_id}/result": Route("images", 200, 404),
    "POST /v1/generations": Route("images", 202, 422, body=_GENERATION),
    "GET /v1/generations": Route("images", 200, 200),
    "GET /v1/generations/stream": Route("images", 200, 404, query={"ids": "{generation_id}"}),
    "GET /v1/generations/{generation_id}": Route("images", 200, 404),
    "GET /v1/generations/{generation_id}/images/{number}/png": Route("images", 404, 404, {"number": "0"}),
    "POST /v1/generations/{generation_id}/cancel": Route("images", 409, 404),
    "PATCH /v1/generations/{generation_id}": Route("images", 200, 404, body={"starred": True}),
    "DELETE /v1/generations/{generation_id}": Route("images", 204, 404),
    "GET /v1/engines": Route("images", 200, 200),
    # The admin API opens to an admin key of any account, and to no other key.
    "POST /v1/admin/accounts": Route("admin", 201, 403, body={"name": "sealed"}),
    "GET /v1/admin/accounts": Route("admin", 200, 403),
    "GET /v1/admin/accounts/{account_id}": Route("admin", 200, 403),
    "PATCH /v1/admin/accounts/{account_id}": Route("admin", 200, 403, body={"limits": {"max_unfinished_tunes": 700}}),
    "POST /v1/admin/accounts/{account_id}/keys": Route("admin", 201, 403, body={"name": "sealed"}),
    "GET /v1/admin/accounts/{account_id}/keys": Route("admin", 200, 403),
    "DELETE /v1/admin/accounts/{account_id}/keys/{key_id}": Route("admin", 200, 403),
}
