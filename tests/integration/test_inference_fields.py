"""Every field of an image request, through API, store and worker, does what the docs say, or a notice names it."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save

from services.inference.schemas import GenerateRequest
from services.trainer.engine.export import write_lora
from shared.blobs.store import Blobs
from shared.engines import Engine
from tests.support.drawing_world import differs, encoded, half_mask, noise, pixels, save_controlnet
from tests.support.inference_world import InferenceWorld, make_world
from tests.support.tiny_pipelines import save_tiny_pipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.timeout(600),
]
SIZE = (512, 512)


def b64(image: Image.Image) -> str:
    return base64.b64encode(encoded(image)).decode()


@dataclass
class Answer:
    """The images and the notices of a response."""

    images: list[Image.Image]
    notices: str


Check = Callable[[Answer, Answer], bool]


def changes(before: Answer, after: Answer) -> bool:
    return differs(before.images[0], after.images[0])


def keeps_the_left(_before: Answer, after: Answer) -> bool:
    left = slice(0, SIZE[0] // 2)
    return bool((pixels(after.images[0])[:, left] == pixels(INIT)[:, left]).all())


def both(*checks: Check) -> Check:
    return lambda before, after: all(check(before, after) for check in checks)


def is_named(name: str) -> Check:
    return lambda before, after: name in after.notices and name not in before.notices and not changes(before, after)


@dataclass
class Row:
    """A request, a change to it, and a check of the two answers."""

    change: dict[str, Any]
    check: Check = changes
    engine: str = "sd"
    body: dict[str, Any] = field(default_factory=dict)


INIT, MASK = noise(4, SIZE), half_mask(SIZE)
FROM_IMAGE = {"init_image": b64(INIT)}
PAINTED = FROM_IMAGE | {"mask_image": b64(MASK)}
CONTROLLED = {"controlnet_image": b64(noise(5, SIZE))}
SMALL_MASK = Image.new("L", SIZE)
SMALL_MASK.paste(255, (384, 384, 448, 448))
CLOSE = FROM_IMAGE | {"mask_image": b64(SMALL_MASK)}
ROWS: dict[str, Row] = {
    "prompt": Row({"prompt": "a blue dog"}),
    "negative_prompt": Row({"negative_prompt": "a blue dog"}),
    "prompt_2": Row({"prompt_2": "a blue dog"}, engine="sdxl"),
    "negative_prompt_2": Row({"negative_prompt_2": "a blue dog"}, engine="sdxl"),
    "checkpoint": Row({"checkpoint": "octoai:other"}),
    "vae": Row({"vae": "vae"}),
    "loras": Row({"loras": {"lora": 1.0, "lora-2": 0.5}}),
    "textual_inversions": Row({"textual_inversions": {"inversion": "cat"}}),
    "sampler": Row({"sampler": "K_EULER_ANCESTRAL"}),
    "width": Row({"width": 768, "height": 512}, lambda _, after: after.images[0].size == (768, 512)),
    "height": Row({"width": 512, "height": 768}, lambda _, after: after.images[0].size == (512, 768)),
    "cfg_scale": Row({"cfg_scale": 2.0}),
    "steps": Row({"steps": 5}),
    "num_images": Row({"num_images": 3}, lambda before, after: (len(before.images), len(after.images)) == (1, 3)),
    "seed": Row({"seed": 6}),
    "init_image": Row({"init_image": b64(noise(9, SIZE))}, body=FROM_IMAGE),
    "strength": Row({"strength": 0.3}, body=FROM_IMAGE),
    "mask_image": Row({"mask_image": b64(MASK)}, both(changes, keeps_the_left), body=FROM_IMAGE),
    "inpaint_full_res": Row({"inpaint_full_res": True}, body=CLOSE),
    "inpaint_full_res_padding": Row({"inpaint_full_res_padding": 150}, body=CLOSE | {"inpaint_full_res": True}),
    "outpainting": Row({"outpainting": True}, both(changes, keeps_the_left), body=PAINTED),
    "controlnet": Row({"controlnet": "octoai:other_canny_sd15"}, engine="controlnet-sd15", body=CONTROLLED),
    "controlnet_image": Row({"controlnet_image": b64(noise(6, SIZE))}, engine="controlnet-sd", body=CONTROLLED),
    "controlnet_conditioning_scale": Row({"controlnet_conditioning_scale": 0.2}, engine="controlnet-sd15", body=CONTROLLED),
    "controlnet_early_stop": Row({"controlnet_early_stop": 0.5}, engine="controlnet-sd15", body=CONTROLLED),
    "controlnet_preprocess": Row({"controlnet_preprocess": False}, engine="controlnet-sdxl", body=CONTROLLED),
    "clip_skip": Row({"clip_skip": 2}),
    "use_refiner": Row({"use_refiner": False}, engine="sdxl"),
    "high_noise_frac": Row({"high_noise_frac": 0.3}, engine="sdxl"),
    "style_preset": Row({"style_preset": "Film Noir"}, engine="sdxl"),
    "image_encoding": Row({"image_encoding": "jpeg"}, lambda _, after: after.images[0].format == "JPEG"),
    "enable_safety": Row({"enable_safety": False}, is_named("enable_safety")),
    "log_prompt": Row({"log_prompt": True}, is_named("log_prompt")),
    "force_asset_download": Row({"force_asset_download": True}, is_named("force_asset_download")),
    "force_asset_gpu_copy": Row({"force_asset_gpu_copy": True}, is_named("force_asset_gpu_copy")),
}
REFUSED = {"transfer_images": {"me": ["AAAA"]}}


def test_every_field_has_a_row() -> None:
    assert set(GenerateRequest.model_fields) == ROWS.keys() | REFUSED.keys()


async def furnish(world: InferenceWorld) -> None:
    """Put random models of every kind into the library."""
    folders: dict[str, Path] = {}
    for name, engine, seed in (
        ("default-sd15", Engine.SD15, 0),
        ("default-sdxl", Engine.SDXL, 0),
        ("other", Engine.SD15, 1),
        ("refiner", Engine.SDXL, 2),
    ):
        folders[name] = world.folder / name
        save_tiny_pipeline(engine, folders[name], seed=seed)
        await world.add_checkpoint(name, folders[name], engine=engine)
    for name, base, seed, engine in (
        ("canny_sd15", "default-sd15", 0, "image/controlnet-sd15"),
        ("other_canny_sd15", "default-sd15", 1, "image/controlnet-sd15"),
        ("canny_sdxl", "default-sdxl", 0, "image/controlnet-sdxl"),
    ):
        await world.add_checkpoint(name, save_controlnet(folders[base], world.folder / name, seed=seed), engine=engine)
    sd15 = {"engine": Engine.SD15, "public": False}
    for number, name in enumerate(("lora", "lora-2")):
        torch.manual_seed(number)
        unet = UNet2DConditionModel.from_pretrained(folders["default-sd15"], subfolder="unet")
        unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        write_lora(world.folder / name, {"unet": unet}, {})
        await world.add_asset(name, "lora", world.folder / name, **sd15)
    vectors = save({"emb_params": torch.randn(2, 32, generator=torch.Generator().manual_seed(1))})
    await world.add_asset("inversion", "textual_inversion", vectors, **sd15)
    config = AutoencoderKL.load_config(folders["default-sd15"], subfolder="vae")
    torch.manual_seed(3)
    vae = AutoencoderKL.from_config(config)
    weights = {name: value.contiguous() for name, value in vae.state_dict().items()}
    await world.add_asset("vae", "vae", save(weights, {"tunesmith.vae.norm_num_groups": "8"}), **sd15)


async def test_every_field_does_what_it_says_or_is_named_in_a_notice(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> None:
    answers: dict[str, Answer] = {}

    async def draw(world: InferenceWorld, engine: str, body: dict[str, Any]) -> Answer:
        usual = {"prompt": "a red cat", "seed": 5, "steps": 4, "cfg_scale": 5.0, "image_encoding": "png"}
        asked = repr((engine, body))
        if asked not in answers:
            answer = await world.client.post(f"/generate/{engine}", json=usual | body)
            assert answer.status_code == 200, (engine, body.keys(), answer.text)
            files = [io.BytesIO(base64.b64decode(image["image_b64"])) for image in answer.json()["images"]]
            answers[asked] = Answer([Image.open(file) for file in files], answer.headers.get("X-Tunesmith-Notice", ""))
        return answers[asked]

    wrong: list[str] = []
    async with make_world(database_url, blobs, make_settings, tmp_path, refiner_checkpoint="octoai:refiner") as world:
        await furnish(world)
        await world.until_listening()
        async with world.worker():
            for name, row in ROWS.items():
                before = await draw(world, row.engine, row.body)
                after = await draw(world, row.engine, row.body | row.change)
                if not row.check(before, after):
                    wrong.append(name)
        for name, value in REFUSED.items():
            answer = await world.client.post("/generate/sd", json={"prompt": "x", name: value})
            assert (answer.status_code, answer.json()["code"]) == (400, "not_supported")
            assert name in answer.json()["detail"]
    assert wrong == []
