"""A painter with random pipelines of the real classes, and helpers to compare images."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image

from services.inference.inputs import Control, DrawnImage, ImageRef, Inputs, ModelRef, Start
from services.inference.worker.materials import Materials
from services.inference.worker.painter import Painter
from services.inference.worker.residency import Residency
from services.inference.worker.steps import never
from shared.engines import Engine
from tests.support.tiny_pipelines import save_tiny_pipeline

PX = 32
"""The size asked for and drawn at, so that no image is enlarged: `Inputs` does not check the API's table of sizes."""
PROMPT = "a red cat"


def ref(name: str) -> ModelRef:
    return ModelRef(name=name, asset_id=f"asset_{name}", blob_key=name, sha256=sha256(name.encode()).hexdigest())


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int = 0, size: tuple[int, int] = (PX, PX)) -> Image.Image:
    """Return an image of coloured squares, which survive a VAE better than single pixels."""
    coarse = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def half_mask(size: tuple[int, int] = (PX, PX)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    return mask


@dataclass
class Studio:
    """A painter, and one random checkpoint for each engine."""

    folders: dict[Engine, Path]
    painter: Painter = field(default_factory=lambda: Painter(Residency(torch.device("cpu"), max_bytes=2**30)))
    images: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)

    def ref(self, key: str, image: Image.Image) -> ImageRef:
        self.images[key] = encoded(image)
        return ImageRef(key=key, width=image.width, height=image.height)

    def start(self, image: Image.Image, mask: Image.Image | None = None, **options: Any) -> Start:
        fields = {"strength": 0.8} | options
        return Start(image=self.ref("init", image), mask=self.ref("mask", mask) if mask else None, **fields)

    def control(self, image: Image.Image, **options: Any) -> Control:
        fields = {"preprocess": None, "scale": 1.0, "early_stop": None} | options
        return Control(model=ref("controlnet"), image=self.ref("control", image), **fields)

    def draw(self, engine: Engine = Engine.SD15, *, seed: int = 5, **options: Any) -> Image.Image:
        return self.drawn(engine, seed=seed, **options)[0]

    def drawn(self, engine: Engine = Engine.SD15, *, seed: int = 5, **options: Any) -> tuple[Image.Image, list[str]]:
        """Draw one image, and return it with the notices; options are fields of the inputs, `files` are more materials."""
        files = options.pop("files", {})
        materials = Materials(self.folders[engine], images=dict(self.images), **files)
        drawing = self.painter.draw(self.inputs(engine, seeds=[seed], **options), materials, never)
        [drawn] = drawing.images
        return self.opened(drawn), drawing.notices

    def opened(self, drawn: DrawnImage) -> Image.Image:
        assert drawn.data is not None
        return Image.open(io.BytesIO(drawn.data))

    def results(self, painter: Painter, **options: Any) -> list[DrawnImage]:
        """Draw with another painter and return what it returns."""
        return painter.draw(self.inputs(Engine.SD15, **options), Materials(self.folders[Engine.SD15]), never).images

    def inputs(self, engine: Engine, **options: Any) -> Inputs:
        """Return the inputs of a request for a small image."""
        fields: dict[str, Any] = {
            "engine": engine,
            "base": ref(engine.name),
            "loras": [],
            "prompt": PROMPT,
            "negative_prompt": "",
            "prompt_2": None,
            "negative_prompt_2": None,
            "sampler": "DDIM",
            "width": PX,
            "height": PX,
            "cfg_scale": 5.0,
            "steps": 4,
            "image_encoding": "png",
        }
        return Inputs(**(fields | options))


def make_studio(folder: Path) -> Iterator[Studio]:
    """Write random checkpoints and yield a studio with them."""
    folders = {engine: folder / engine.name for engine in (Engine.SD15, Engine.SDXL)}
    for engine, place in folders.items():
        save_tiny_pipeline(engine, place)
    yield Studio(folders)


def direct_pipelines(folders: Mapping[Engine, Path]) -> dict[Engine, Any]:
    """Return diffusers' pipelines of the checkpoints, loaded by diffusers, with the default sampler."""
    kinds = {Engine.SD15: diffusers.StableDiffusionPipeline, Engine.SDXL: diffusers.StableDiffusionXLPipeline}
    pipelines: dict[Engine, Any] = {}
    for engine, folder in folders.items():
        more = {"safety_checker": None} if engine is Engine.SD15 else {"add_watermarker": False}
        pipelines[engine] = kinds[engine].from_pretrained(folder, local_files_only=True, **more)
        pipelines[engine].set_progress_bar_config(disable=True)
        set_ddim(pipelines[engine])
    return pipelines


def set_ddim(pipeline: Any) -> None:
    """Give one of diffusers' pipelines the sampler DDIM as docs/api.md states it."""
    as_stated = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, **as_stated)


def by_diffusers(pipeline: Any, seed: int = 5, **options: Any) -> Image.Image:
    arguments = {"prompt": PROMPT, "width": PX, "height": PX, "guidance_scale": 5.0, "num_inference_steps": 4} | options
    return pipeline(generator=torch.Generator("cpu").manual_seed(seed), **arguments).images[0]


def save_controlnet(unet_folder: Path, folder: Path, *, seed: int = 0) -> Path:
    """Write a ControlNet with random weights, including its zero convolutions, so that it has an effect."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(unet_folder, subfolder="unet")
    # One stride of two, because the random VAE has a factor of 2.
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
    for weights in controlnet.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.1)
    controlnet.save_pretrained(folder)
    return folder


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def differs(one: Image.Image, other: Image.Image) -> bool:
    return bool((pixels(one) != pixels(other)).any())
