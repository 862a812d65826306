"""The original guide's curl bodies, field by field as they stood there; only their ids, captions and names are ours.

Part of `make test-sdks`, with the guide's 800 steps and with a quarter of them; both must teach the subject.
"""

import base64
import io
from functools import partial
from typing import Any

import pytest
from PIL import Image

from tests.sdks.curl import Curl
from tests.sdks.guide import ended
from tests.support import likenesses
from tunesmith import demo
from tunesmith.client import Client

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
SDXL = "asset_01hdpjv7bxe1n99eazrv23ca1k"
CAPTIONS = ("on a white background", "on grass", "on a yellow background", "in a room", "on a beach")
STEPS = [200, pytest.param(800, marks=pytest.mark.timeout(3600))]
LEAST = {"sd": (0.06, 0.8), "sdxl": (0.04, 0.7)}
"""By how much images with the LoRA must be more like the subject in the mean, and the least share of all pairs of an image with it
and one without it in which the first must be. A LoRA that does nothing gains 0.

The body names no seed, so every run differs. After 200 steps five runs with SD 1.5 gained 0.10 to 0.15, and six with SDXL 0.05 to
0.13. After 800 steps, which is too many for five images, one run gained 0.10, and two with earlier weights of SDXL 0.03 and 0.06.
"""


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
    """Ids of five images."""
    stem = f"bodies-{len(client.assets())}"
    return [client.upload(demo.SAMPLES / f"star-{n}.png", name=f"{stem}-{n}").id for n in range(1, 6)]


@pytest.mark.parametrize("steps", STEPS)
def test_the_guides_bodies_for_sdxl(curl: Curl, client: Client, files: list[str], steps: int) -> None:
    name = f"sks1-sdxl-{steps}-{len(client.tunes())}"
    started = curl.send("POST", "/v1/tune", _tune(name, {"name": "default-sdxl", "checkpoint_id": SDXL}, files, steps))
    done = ended(curl, started["id"])
    body = _image(name, 1024, use_refiner=True, high_noise_frac=0.8, style_preset="base")
    made = curl.send("POST", "/generate/sdxl", body)

    assert started["description"] == "sks1 star"
    assert started["details"]["base_checkpoint"]["engine"] == "image/stable-diffusion-xl-v1-0"
    assert (done["status"], done["details"]["steps"]) == ("succeeded", steps), done["status_details"]
    assert _size(made) == (1024, 1024)
    _assert_learnt(curl, "sdxl", body)


@pytest.mark.parametrize("steps", STEPS)
def test_the_guides_bodies_for_stable_diffusion_1_5(curl: Curl, client: Client, files: list[str], steps: int) -> None:
    name = f"sks1-sd15-{steps}-{len(client.tunes())}"
    base = {"name": "default-sd15", "checkpoint_id": client.asset("octoai:default-sd15").id}
    started = curl.send("POST", "/v1/tune", _tune(name, base, files, steps))
    done = ended(curl, started["id"])
    body = _image(name, 512)
    made = curl.send("POST", "/generate/sd", body)

    assert started["details"]["base_checkpoint"]["engine"] == "image/stable-diffusion-v1-5"
    assert (done["status"], done["details"]["steps"]) == ("succeeded", steps), done["status_details"]
    assert _size(made) == (512, 512)
    _assert_learnt(curl, "sd", body)


def _assert_learnt(curl: Curl, engine: str, body: dict[str, Any]) -> None:
    """Draw with the body's LoRA and without it, with prompts whose words the small checkpoints know, unlike the guide's."""
    known = body | {"negative_prompt": "", "cfg_scale": 5, "num_images": 2}

    def draw(prompt: str, seed: int, **changed: Any) -> list[bytes]:
        made = curl.send("POST", f"/generate/{engine}", known | {"prompt": prompt, "seed": seed} | changed)
        return [base64.b64decode(image["image_b64"]) for image in made["images"]]

    measured = likenesses.measure(partial(draw, loras={}), draw, "sks1")

    print(engine, measured)
    gain, part = LEAST[engine]
    assert measured.gain >= gain
    assert measured.part >= part


def _size(made: dict[str, Any]) -> tuple[int, int]:
    [image] = made["images"]
    assert (image["removed_for_safety"], image["safety_score"]) == (False, None)
    with Image.open(io.BytesIO(base64.b64decode(image["image_b64"]))) as opened:
        assert opened.format == "JPEG"
        return opened.size
