"""A library that the client talks to in tests: it keeps assets and their bytes, and rejects what is neither PNG nor JPEG.

The server's own schemas check each body that it gets and each answer that it gives.
"""

import json
import threading
from typing import Any
from uuid import UUID

import httpx

from services.scheduler.schemas import CreateTune, TuneAnswer
from services.scheduler.whatif.service import WhatIf
from services.upload.schemas import AssetAnswer, AssetCreate, AssetCreated, AssetList, Download
from tunesmith.client import Client

OWNER = str(UUID(int=1))
WHEN = "2026-01-01T00:00:00Z"


class LibraryServer:
    """Answers the requests of a client. `tunes` has the body of each tune that was asked for."""

    def __init__(self) -> None:
        self.assets: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.tunes: list[dict[str, Any]] = []
        self.refusal: httpx.Response | None = None
        """What the next tune is answered with."""
        self.cut_uploads = 0
        """The number of uploads to come whose connection is lost."""
        self._made = 0
        self._lock = threading.Lock()

    def client(self) -> Client:
        """Return a client of this server."""
        client = Client("http://tunesmith.test", "key", patience_s=0)
        client._http = httpx.Client(transport=httpx.MockTransport(self.answer), base_url=client.url)
        client._plain = httpx.Client(transport=httpx.MockTransport(self.store))
        return client

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the asset of this name, if there is one."""
        return [asset for asset in self.assets.values() if asset["name"] == name]

    def store(self, request: httpx.Request) -> httpx.Response:
        """Answer as the store does."""
        key = request.url.path.removeprefix("/")
        if request.method == "GET":
            start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            return httpx.Response(206 if start else 200, content=self.files[key][start:])
        if self.cut_uploads:
            self.cut_uploads -= 1
            raise httpx.WriteError("cut", request=request)
        self.files[key] = request.read()
        assert request.headers["Content-Length"] == str(len(self.files[key]))
        return httpx.Response(200)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as the API does. Several threads may ask."""
        body = json.loads(request.read() or b"{}")
        with self._lock:
            return self.route(request, request.method, request.url.path.strip("/").split("/"), body)

    def route(self, request: httpx.Request, method: str, path: list[str], body: dict[str, Any]) -> httpx.Response:
        """Return the answer to one request."""
        match method, path[1:]:
            case "GET", ["assets"]:
                name = request.url.params.get("name")
                listed = self.named(name) if name else [*self.assets.values()]
                return answered(AssetList, {"data": listed, "has_more": False, "total": len(listed)})
            case "POST", ["assets"]:
                return self._create(body)
            case "POST", ["assets", asset_id, "complete-upload"]:
                is_image = self.files[asset_id].startswith((b"\x89PNG", b"\xff\xd8"))
                verdict = {"status": "ready"} if is_image else {"status": "rejected", "status_details": "neither PNG nor JPEG"}
                self.assets[asset_id] |= verdict
                return httpx.Response(200, json={"error": None})
            case "GET", ["assets", key]:
                if not (found := self.named(key) or [asset for asset in self.assets.values() if asset["id"] == key]):
                    return missing(key)
                url = f"http://store.test/{found[0]['id']}"
                transfer = {"put_url": url} if found[0]["status"] == "ready_to_upload" else {"get_url": url}
                return answered(AssetAnswer, {"asset": found[0], "transfer_api": {"type": "presigned-url", **transfer}})
            case "GET", ["assets", asset_id, "download"]:
                layout = request.url.params["format"]
                name = f"{self.assets[asset_id]['name']}.{layout}.safetensors"
                return answered(Download, {"url": f"http://store.test/{asset_id}-{layout}", "file_name": name, "size_bytes": 9})
            case "DELETE", ["assets", asset_id]:
                del self.assets[asset_id]
                return httpx.Response(200, json={"id": asset_id, "deleted_at": WHEN})
            case "POST", ["tune"]:
                return self._tune(body, is_asked_only="whatif" in request.url.params)
            case _:
                return missing(request.url.path)

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        AssetCreate.model_validate(body)
        if self.named(body["name"]):
            return httpx.Response(409, json={"detail": f"name: {body['name']!r} is taken", "code": "name_taken"})
        self._made += 1
        asset_id = f"asset_{self._made}"
        given = {"status": "ready_to_upload", "status_details": "", "created_at": WHEN, "tenant_uuid": OWNER, "description": ""}
        self.assets[asset_id] = {"id": asset_id, "size_bytes": 9, **given, **body}
        transfer = {"type": "presigned-url", "put_url": f"http://store.test/{asset_id}", "get_url": ""}
        return answered(AssetCreated, {"asset": self.assets[asset_id], "transfer_api": transfer})

    def _tune(self, body: dict[str, Any], *, is_asked_only: bool) -> httpx.Response:
        CreateTune.model_validate(body)
        if self.refusal:
            return self.refusal
        self.tunes.append(body)
        if is_asked_only:
            return answered(WhatIf, {"lint": [], "estimate": {"seconds": 1, "memory_bytes": 1, "basis": "a guess"}})
        return answered(TuneAnswer, self.tune_answer(len(self.tunes)), 201)

    def tune_answer(self, number: int, **fields: Any) -> dict[str, Any]:
        """Return the tune that was asked for as the number-th."""
        body = self.tunes[number - 1]
        nothing = dict.fromkeys(
            ("result", "succeeded_at", "deleted_at", "progress", "webhook", "error_code", "queue", "started_at", "ended_at")
        )
        lists: dict[str, Any] = {"output_lora_ids": [], "warnings": [], "webhook_events_filter": [], "thumbnail_urls": []}
        counts = {"sequence": 1, "attempt": 0, "max_attempts": 3}
        times = {"created_at": WHEN, "updated_at": WHEN}
        texts = {"description": "", "status": "pending", "status_details": "", "phase": "queue", "tune_type": "lora_tune"}
        mine = {"id": f"tune_{number}", "tenant_id": OWNER, "dataset_id": None}
        given = {key: value for key, value in body.items() if value is not None}
        return {**nothing, **lists, **counts, **times, **texts, **mine, **given, **fields}


def answered(model: Any, body: dict[str, Any], status: int = 200) -> httpx.Response:
    """Return an answer that the server's own model has checked."""
    return httpx.Response(status, json=model.model_validate(body).model_dump(mode="json"))


def missing(what: str) -> httpx.Response:
    """Return the answer for what does not exist."""
    return httpx.Response(404, json={"detail": f"there is no {what}", "code": "not_found"})
