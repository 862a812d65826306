"""The original guide's curl bodies, field by field as they stood there; only their ids, captions and names are ours."""

import base64
import io
from typing import Any

import pytest
from PIL import Image

from tests.sdks.curl import Curl
from tests.sdks.guide import ended
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(900)
SDXL = "asset_01hdpjv7bxe1n99eazrv23ca1k"
CAPTIONS = ("at the beach", "with a bone", "looking up", "in the grass", "in the park")
GUIDES_STEPS = pytest.param(800, marks=[pytest.mark.long, pytest.mark.timeout(3600)])


def _tune(name: str, base: dict[str, str], files: list[str], steps: int) -> dict[str, Any]:
    return {
        "details": {
            "base_checkpoint": base,
            "tune_type": "lora_tune",
            "files": [{"file_id": id_, "caption": f"sks1 star {text}"} for id_, text in zip(files, CAPTIONS, strict=True)],
            "trigger_words": ["sks1"],
            "steps": steps,
        },
        "tune_type": "lora_tune",
        "description": "sks1 star",
        "name": name,
    }


def _image(lora: str, side: int, **more: Any) -> dict[str, Any]:
    return {
        "prompt": "A photo of a sks1 star running in space",
        "negative_prompt": "Blurry photo, distortion, low-res, poor quality",
        "loras": {lora: 0.9},
        "width": side,
        "height": side,
        "num_images": 1,
        "sampler": "DDIM",
        "steps": 30,
        "cfg_scale": 12,
        **more,
    }


@pytest.fixture(scope="session")
def files(client: Client) -> list[str]:
    """Ids of five pictures."""
    stem = f"bodies-{len(client.assets())}"
    return [client.upload(demo.SAMPLES / f"star-{n}.png", name=f"{stem}-{n}").id for n in range(1, 6)]


@pytest.mark.parametrize("steps", [4, GUIDES_STEPS])
def test_the_guides_bodies_for_sdxl(curl: Curl, client: Client, files: list[str], steps: int) -> None:
    name = f"sks1-sdxl-{steps}-{len(client.tunes())}"
    started = curl.send("POST", "/v1/tune", _tune(name, {"name": "default-sdxl", "checkpoint_id": SDXL}, files, steps))
    done = ended(curl, started["id"])
    made = curl.send("POST", "/generate/sdxl", _image(name, 1024, use_refiner=True, high_noise_frac=0.8, style_preset="base"))

    assert started["description"] == "sks1 star"
    assert started["details"]["base_checkpoint"]["engine"] == "image/stable-diffusion-xl-v1-0"
    assert (done["status"], done["details"]["steps"]) == ("succeeded", steps), done["status_details"]
    assert _size(made) == (1024, 1024)


@pytest.mark.parametrize("steps", [4, GUIDES_STEPS])
def test_the_like_for_stable_diffusion_1_5(curl: Curl, client: Client, files: list[str], steps: int) -> None:
    name = f"sks1-sd15-{steps}-{len(client.tunes())}"
    base = {"name": "default-sd15", "checkpoint_id": client.asset("octoai:default-sd15").id}
    started = curl.send("POST", "/v1/tune", _tune(name, base, files, steps))
    done = ended(curl, started["id"])
    made = curl.send("POST", "/generate/sd", _image(name, 512))

    assert started["details"]["base_checkpoint"]["engine"] == "image/stable-diffusion-v1-5"
    assert (done["status"], done["details"]["steps"]) == ("succeeded", steps), done["status_details"]
    assert _size(made) == (512, 512)


def _size(made: dict[str, Any]) -> tuple[int, int]:
    [image] = made["images"]
    assert (image["removed_for_safety"], image["safety_score"]) == (False, None)
    with Image.open(io.BytesIO(base64.b64decode(image["image_b64"]))) as picture:
        assert picture.format == "JPEG"
        return picture.size
