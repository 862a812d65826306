"""Answers of the API of the images, for the pages' tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.browser.stubs import Asked, Events, StubApi, data_url, painted, signed_in

SD15 = "image/stable-diffusion-v1-5"
SDXL = "image/stable-diffusion-xl-v1-0"
Json = dict[str, Any]


def asset(name: str, kind: str, engine: str = SD15, words: tuple[str, ...] = (), *, is_public: bool = False) -> Json:
    """Return a ready asset."""
    data = {"asset_type": kind, "engine": engine, "shape_class": "sd15", "trigger_words": list(words)}
    return {
        "id": f"asset_{name}", "asset_type": kind, "name": name, "description": "", "size_bytes": 1000, "status": "ready",
        "status_details": "", "created_at": "2026-08-01T10:00:00Z", "data": data, "is_public": is_public,
    }  # fmt: skip


def engine(name: str, family: str, side: int) -> Json:
    """Return an engine."""
    pairs = [(1, 1), (0.75, 1.5), (0.875, 1.25), (1.25, 0.875), (1.5, 0.75)]
    return {
        "name": name, "family": family, "checkpoint_engine": family, "default_checkpoint": f"octoai:default-{name}",
        "available": True, "has_controlnet": False, "has_refiner": False,
        "sizes": [{"width": int(side * wide), "height": int(side * high)} for wide, high in pairs],
        "samplers": ["DDIM", "K_EULER", "DPM_PLUS_PLUS_2M_KARRAS"],
        "style_presets": ["anime", "analog-film"] if family == SDXL else [],
        "recommended": {"sampler": "DPM_PLUS_PLUS_2M_KARRAS", "steps": 25, "cfg_scale": 7, "width": side, "height": side},
        "limits": {"steps": 200, "num_images": 16, "loras": 16, "cfg_scale": 50, "variants": 64, "body_bytes": 1},
    }  # fmt: skip


class StubImages:
    """An API of images: requests wait until `draw` is called, which draws all of them."""

    def __init__(self, api: StubApi) -> None:
        self.api = api
        self.generations: list[Json] = []
        self._streams = 0
        signed_in(api)
        api.on("GET", "/v1/engines", {"data": [engine("sd", SD15, 512), engine("sdxl", SDXL, 1024)]})
        self.assets = [
            asset("default-sd15", "checkpoint", is_public=True), asset("default-sdxl", "checkpoint", SDXL, is_public=True),
            asset("dog-sks1", "lora", words=("sks1",)), asset("watercolour", "lora"), asset("large", "lora", SDXL),
        ]  # fmt: skip
        api.on("GET", "/v1/assets", self._list)
        api.on("GET", r"/v1/assets/(asset_.*)", lambda asked: {"asset": self._asset(asked.groups[0])})
        api.on("POST", "/v1/generations", self._create)
        api.on("GET", "/v1/generations", self._history)
        api.on("GET", "/v1/generations/stream", self._stream)
        api.on("PATCH", r"/v1/generations/(\w+)", self._star)
        api.on("POST", r"/v1/generations/(\w+)/cancel", self._cancel)
        api.on("DELETE", r"/v1/generations/(\w+)", self._delete)
        api.on("GET", r"/store/(\d+)_(\d+)_(\d+)\.png", lambda asked: painted(*map(int, asked.groups)))

    def add(self, request: Json, *, images: int = 1, age_h: float = 0, **changes: Any) -> Json:
        """Add a request whose images are drawn."""
        made = self._new({"engine": "sd", "request": {"num_images": images} | request}, None)
        made["created_at"] = (datetime.now(UTC) - timedelta(hours=age_h)).isoformat()
        self._finish(made)
        made |= changes
        return made

    def draw(self) -> None:
        """Draw what waits."""
        for generation in self.generations:
            if generation["status"] in {"queued", "running"}:
                self._finish(generation)

    def _asset(self, asset_id: str) -> Json:
        return next(asset for asset in self.assets if asset["id"] == asset_id)

    def _list(self, asked: Asked) -> Json:
        kind, q, is_public = asked.query["asset_type"][0], asked.query.get("q", [""])[0], "owner" in asked.query
        found = [one for one in self.assets if one["asset_type"] == kind and one["is_public"] == is_public and q in one["name"]]
        return {"data": found, "has_more": False, "total": len(found)}

    def _create(self, asked: Asked) -> Json:
        variants = asked.body.get("variants") or [{}]
        made = [self._new(asked.body, variant) for variant in variants]
        return {"group_id": "group_1" if asked.body.get("variants") else None, "data": made}

    def _new(self, body: Json, variant: Json | None) -> Json:
        request = {name: value for name, value in body["request"].items() if name not in {"init_image", "mask_image"}}
        request |= variant or {}
        has_start = "init_image" in body["request"]
        loras = request.get("loras") or {}
        made = {
            "id": f"gen_{len(self.generations):04}", "group_id": None, "group": body.get("group"), "cell": None,
            "engine": body["engine"], "status": "queued", "request": request,
            "inputs": {"init_image_url": "/store/9_512_512.png" if has_start else None, "mask_url": None},
            "images": [], "notices": [], "error": None, "versions": {}, "prediction_time_ms": None, "ahead": 0,
            "models": [{"name": name, "kind": "lora", "weight": weight, "sha256": "", "exists": True} for name, weight in loras.items()],
            "created_at": datetime.now(UTC).isoformat(), "finished_at": None, "kept_until": None, "starred": False,
        }  # fmt: skip
        self.generations.append(made)
        return made

    def _finish(self, generation: Json) -> None:
        request, number = generation["request"], self.generations.index(generation)
        width, height = request.get("width", 512), request.get("height", 512)
        seed = request.get("seed", 100 * (number + 1))
        urls = [f"/store/{seed + place}_{width}_{height}.png" for place in range(request.get("num_images", 1))]
        generation["images"] = [
            {
                "number": place, "seed": seed + place, "url": url, "thumbnail_url": url, "width": width, "height": height,
                "removed_for_safety": False, "safety_score": None,
            }
            for place, url in enumerate(urls)
        ]  # fmt: skip
        until = (datetime.now(UTC) + timedelta(hours=24)).isoformat()
        generation |= {"status": "succeeded", "ahead": None, "finished_at": generation["created_at"], "kept_until": until}

    def _history(self, asked: Asked) -> Json:
        q, lora = asked.query.get("q", [""])[0], asked.query.get("lora", [None])[0]
        found = [one for one in reversed(self.generations) if q in one["request"]["prompt"]]
        found = [one for one in found if lora is None or lora in (one["request"].get("loras") or {})]
        if "starred" in asked.query:
            found = [one for one in found if one["starred"]]
        return {"data": sorted(found, key=lambda one: one["created_at"], reverse=True), "has_more": False}

    def _stream(self, asked: Asked) -> Events:
        mine = [one for one in self.generations if one["id"] in asked.query["ids"]]
        events: list[tuple[str, Any]] = [("done", one) for one in mine if one["status"] not in {"queued", "running"}]
        for one in mine:
            if one["status"] in {"queued", "running"}:
                one |= {"status": "running", "ahead": None}
                preview = data_url(painted(7, 64, 64))
                progress = {"id": one["id"], "status": "running", "step": 12, "steps": 25, "ahead": None, "preview": preview}
                events.append(("progress", progress))
        return Events(events)

    def _one(self, asked: Asked) -> Json:
        return next(one for one in self.generations if one["id"] == asked.groups[0])

    def _star(self, asked: Asked) -> Json:
        self._one(asked)["starred"] = asked.body["starred"]
        return self._one(asked)

    def _cancel(self, asked: Asked) -> Json:
        self._one(asked)["status"] = "cancelled"
        return self._one(asked)

    def _delete(self, asked: Asked) -> None:
        self.generations.remove(self._one(asked))
