"""A library that the client talks to in tests: it keeps assets and their bytes, and rejects what is neither PNG nor JPEG."""

import json
from typing import Any

import httpx

from tunesmith.client import Client


class LibraryServer:
    """Answers the requests of a client. `tunes` has the body of each tune that was asked for."""

    def __init__(self) -> None:
        self.assets: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.tunes: list[dict[str, Any]] = []
        self.refusal: httpx.Response | None = None
        """What the next tune is answered with."""
        self._made = 0

    def client(self) -> Client:
        """Return a client of this server."""
        client = Client("http://tunesmith.test", "key")
        client._http = httpx.Client(transport=httpx.MockTransport(self._answer), base_url=client.url)
        client._plain = httpx.Client(transport=httpx.MockTransport(self._store))
        return client

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the asset of this name, if there is one."""
        return [asset for asset in self.assets.values() if asset["name"] == name]

    def _store(self, request: httpx.Request) -> httpx.Response:
        self.files[request.url.path.removeprefix("/")] = request.read()
        return httpx.Response(200)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = json.loads(request.read() or b"{}")
        match request.method, path.strip("/").split("/")[1:]:
            case "GET", ["assets"]:
                name = request.url.params.get("name")
                listed = self.named(name) if name else [*self.assets.values()]
                return httpx.Response(200, json={"data": listed, "has_more": False, "total": len(listed)})
            case "POST", ["assets"]:
                return self._create(body)
            case "POST", ["assets", asset_id, "complete-upload"]:
                is_image = self.files[asset_id].startswith((b"\x89PNG", b"\xff\xd8"))
                verdict = {"status": "ready"} if is_image else {"status": "rejected", "status_details": "neither PNG nor JPEG"}
                self.assets[asset_id] |= verdict
                return httpx.Response(200, json={"error": None})
            case "GET", ["assets", asset_id]:
                return httpx.Response(200, json={"asset": self.assets[asset_id]})
            case "DELETE", ["assets", asset_id]:
                del self.assets[asset_id]
                return httpx.Response(200, json={"id": asset_id})
            case "POST", ["tune"]:
                return self._tune(body, is_asked_only="whatif" in request.url.params)
            case _:
                return httpx.Response(404, json={"detail": path, "code": "not_found"})

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        if self.named(body["name"]):
            return httpx.Response(409, json={"detail": f"name: {body['name']!r} is taken", "code": "name_taken"})
        self._made += 1
        asset_id = f"asset_{self._made}"
        given = {"status": "ready_to_upload", "status_details": "", "size_bytes": 9, "created_at": "2026-01-01T00:00:00Z"}
        self.assets[asset_id] = {"id": asset_id, **given, **body}
        transfer = {"type": "presigned-url", "put_url": f"http://store.test/{asset_id}", "get_url": ""}
        return httpx.Response(200, json={"asset": self.assets[asset_id], "transfer_api": transfer})

    def _tune(self, body: dict[str, Any], *, is_asked_only: bool) -> httpx.Response:
        if self.refusal:
            return self.refusal
        self.tunes.append(body)
        if is_asked_only:
            return httpx.Response(200, json={"lint": [], "estimate": {"seconds": 1, "memory_bytes": 1, "basis": "a guess"}})
        made = {"id": f"tune_{len(self.tunes)}", "status": "waiting_files", "status_details": "", "output_lora_ids": []}
        return httpx.Response(201, json={**made, **body, "created_at": "2026-01-01T00:00:00Z"})
