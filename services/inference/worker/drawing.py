"""Draws the pictures of one request."""

import io
import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from services.inference.inputs import Inputs
from services.inference.worker.residency import Resident
from shared.engines import Engine
from shared.models import samplers

FULL_SIZE_PX = 512
"""Checkpoints below this native size draw at it, and the picture is enlarged: at 1024 px a 64 px model draws nothing."""
_JPEG_QUALITY = 95


class StoppedError(Exception):
    """The worker has to go; the request is another's."""


def run_size(width: int, height: int, native_px: int, divisor: int) -> tuple[int, int]:
    """Return the size to draw at: as asked, or for a small checkpoint its native area in the aspect asked for.

    Sides are multiples of `divisor`, the VAE's factor times the UNet's.
    """
    if native_px >= FULL_SIZE_PX:
        return width, height
    scale = native_px / math.sqrt(width * height)
    return tuple(max(divisor, round(side * scale / divisor) * divisor) for side in (width, height))  # pyright: ignore[reportReturnType]


def draw(resident: Resident, inputs: Inputs, stop: Callable[[], bool]) -> tuple[list[bytes], list[str]]:
    """Return the encoded pictures, in the order of their seeds, and what the caller should know.

    Pictures are drawn one at a time: in a batch, the same seed gives other last bits depending on its neighbours, and a
    picture must come out the same when it is asked for alone. Raises StoppedError.
    """
    info, pipeline = resident.components.info, resident.pipeline
    factor = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    width, height = run_size(inputs.width, inputs.height, info.native_size_px, factor)
    notices: list[str] = []
    if (width, height) != (inputs.width, inputs.height):
        notices.append(
            f"{inputs.base.name} is a small checkpoint: drawn at {width}x{height}, enlarged to {inputs.width}x{inputs.height}"
        )
    if too_long := _tokens_left_out(resident, inputs.prompt):
        notices.append(f"the end of the prompt was left out ({too_long} tokens)")

    def check(_pipeline: Any, _step: int, _time: int, state: dict[str, Any]) -> dict[str, Any]:
        if stop():
            raise StoppedError
        return state

    options: dict[str, Any] = {
        "prompt": inputs.prompt,
        "negative_prompt": inputs.negative_prompt,
        "width": width,
        "height": height,
        "guidance_scale": inputs.cfg_scale,
        "num_inference_steps": inputs.steps,
        "callback_on_step_end": check,
        "output_type": "pil",
    }
    if inputs.engine is Engine.SDXL:
        options |= {"prompt_2": inputs.prompt_2, "negative_prompt_2": inputs.negative_prompt_2}
    pictures: list[bytes] = []
    for seed in inputs.seeds:
        # A scheduler keeps state while it runs: each picture gets a fresh one.
        pipeline.scheduler = samplers.make(inputs.sampler, resident.components.scheduler_folder)
        # Noise is drawn on the CPU, so that a seed means the same picture on every device.
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.inference_mode():
            image: Image.Image = pipeline(generator=generator, **options).images[0]
        if image.size != (inputs.width, inputs.height):
            image = image.resize((inputs.width, inputs.height), Image.Resampling.LANCZOS)
        pictures.append(_encode(image, inputs.image_encoding))
    return pictures, notices


def _encode(image: Image.Image, encoding: str) -> bytes:
    out = io.BytesIO()
    if encoding == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _tokens_left_out(resident: Resident, prompt: str) -> int:
    tokenizer = resident.components.tokenizers[0]
    return max(0, len(tokenizer(prompt, truncation=False).input_ids) - tokenizer.model_max_length)
