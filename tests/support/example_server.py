"""The server that the examples in the client's docstrings talk to: a library with a photo, a tune that ends, and images."""

import base64
import io
from pathlib import Path
from typing import Any, Self

import httpx
from PIL import Image

from services.inference.schemas import AsyncAnswer, GenerateAnswer, GenerateRequest, PollAnswer
from services.scheduler.admin.schemas import AccountAnswer, CreateAccount, CreateKey, KeyCreated
from services.scheduler.datasets.schemas import DatasetAnswer, DatasetBody
from services.scheduler.events.schemas import Losses, SampleList
from services.scheduler.schemas import TuneAnswer, TuneList
from services.upload.schemas import AssetAnswer
from tests.support.library_server import OWNER, WHEN, LibraryServer, answered

_TUNE = {
    "name": "my-dog",
    "details": {
        "base_checkpoint": {"checkpoint_id": "asset_0"},
        "files": [{"file_id": "asset_1"}],
        "steps": 500,
        "trigger_words": ["sks1"],
    },
}


class ExampleServer(LibraryServer):
    """Answers for the whole API as far as the examples use it. Its tune ends while it is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.datasets: dict[str, dict[str, Any]] = {}
        self.generated: list[dict[str, Any]] = []
        """The body of each request for images."""
        self._later: dict[str, dict[str, Any]] = {}
        self._looks = 0

    @classmethod
    def with_photos(cls, folder: Path) -> Self:
        """Return a server that has the asset `rex` and the tune `my-dog`, and write the photos that the examples upload."""
        made = cls()
        for name, colour in {
            "rex.png": "brown",
            "spot.png": "white",
            "10_sks1 dog/a.png": "red",
            "10_sks1 dog/b.png": "blue",
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(drawn(colour))
        made.client().upload(folder / "rex.png")
        made.tunes.append(_TUNE)
        return made

    def route(self, request: httpx.Request, method: str, path: list[str], body: dict[str, Any]) -> httpx.Response:
        """Return the answer to one request."""
        match method, path:
            case "GET", ["v1", "assets", "octoai:default-sd15"]:
                base = {"id": "asset_0", "asset_type": "checkpoint", "name": "default-sd15", "description": "", "status": "ready"}
                base |= {"status_details": "", "size_bytes": 9, "created_at": WHEN, "data": {}, "tenant_uuid": OWNER}
                return answered(AssetAnswer, {"asset": base | {"is_public": True}, "transfer_api": {"type": "presigned-url"}})
            case "GET", ["v1", "tunes"]:
                names = request.url.params.get_list("name") or [tune["name"] for tune in self.tunes]
                data = [self.tune_answer(n) for n, tune in enumerate(self.tunes, 1) if tune["name"] in names]
                return answered(TuneList, {"data": data, "has_more": False, "total": len(data)})
            case "GET", ["v1", "tune", tune_id, *part]:
                return self._of_tune(tune_id, part)
            case "POST", ["generate", _]:
                return self._generate(body, is_later="X-OctoAI-Async" in request.headers)
            case "GET", ["generate", "responses", _]:
                return answered(PollAnswer, {"status": "completed", "response_url": "http://tunesmith.test/r"})
            case "GET", ["generate", "responses", response_id, "result"]:
                return self._images(self._later[response_id])
            case _, ["v1", "datasets", *key]:
                return self._dataset(method, key, body, request)
            case "POST", ["v1", "admin", "accounts", *rest]:
                return self._admin(rest, body)
            case _:
                return super().route(request, method, path, body)

    def _of_tune(self, tune_id: str, part: list[str]) -> httpx.Response:
        if part == ["losses"]:
            return answered(Losses, {"first_step": 1, "losses": [0.3, 0.2, 0.1], "resumed_at": [], "sequence": 3})
        if part == ["samples"]:
            sample = {"step": 500, "number": 0, "prompt": "a sks1 dog", "seed": 1, "url": "http://store.test/sample"}
            return answered(SampleList, {"data": [sample], "sequence": 3})
        self._looks += 1
        step, status = (250, "running") if self._looks == 1 else (500, "succeeded")
        progress = {"step": step, "steps": 500, "loss": 0.1, "steps_per_second": 9.0, "eta_seconds": 1.0}
        number = int(tune_id.removeprefix("tune_"))
        return answered(TuneAnswer, self.tune_answer(number, status=status, progress=progress, sequence=self._looks))

    def _generate(self, body: dict[str, Any], *, is_later: bool) -> httpx.Response:
        GenerateRequest.model_validate(body)
        self.generated.append(body)
        if not is_later:
            return self._images(body)
        response_id = f"image_{len(self.generated)}"
        self._later[response_id] = body
        return answered(AsyncAnswer, {"response_id": response_id, "poll_url": "http://tunesmith.test/p"})

    @staticmethod
    def _images(body: dict[str, Any]) -> httpx.Response:
        data = base64.b64encode(drawn("gray")).decode()
        seeds = [body.get("seed", 41) + number for number in range(body.get("num_images", 1))]
        images = [{"image_b64": data, "removed_for_safety": False, "seed": seed, "safety_score": None} for seed in seeds]
        return answered(GenerateAnswer, {"images": images, "prediction_time_ms": 1})

    def _dataset(self, method: str, key: list[str], body: dict[str, Any], request: httpx.Request) -> httpx.Response:
        if method == "PUT":
            assert request.headers["If-Match"] == str(self.datasets[key[0]]["version"])
        fields = DatasetBody.model_validate(body).model_dump()
        dataset_id = key[0] if key else f"dataset_{len(self.datasets) + 1}"
        version = self.datasets.get(dataset_id, {"version": 0})["version"] + 1
        more = {"id": dataset_id, "version": version, "created_at": WHEN, "updated_at": WHEN, "tunes": []}
        self.datasets[dataset_id] = fields | more
        return answered(DatasetAnswer, self.datasets[dataset_id], 200 if key else 201)

    @staticmethod
    def _admin(rest: list[str], body: dict[str, Any]) -> httpx.Response:
        if not rest:
            asked = CreateAccount.model_validate(body)
            account = {"id": OWNER, "name": asked.name, "is_platform": False, "created_at": WHEN, "limits": asked.limits}
            return answered(AccountAnswer, account, 201)
        key = CreateKey.model_validate(body).model_dump() | {
            "id": "key_1",
            "account_id": OWNER,
            "hint": "tsk_1",
            "created_at": WHEN,
        }
        return answered(KeyCreated, key | {"revoked_at": None, "last_used_at": None, "secret": "tsk_1x"}, 201)


def drawn(colour: str) -> bytes:
    """Return a small PNG of one colour."""
    held = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(held, "PNG")
    return held.getvalue()
