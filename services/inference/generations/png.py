"""Images as PNGs that name their settings, in the form of AUTOMATIC1111's web UI: a text chunk `parameters`.

Its `modules/infotext_utils.py` reads it, and so do other user interfaces.
"""

import asyncio
import io
from typing import Any

from services.inference.inputs import Inputs

_KEY = "parameters"


async def with_settings(data: bytes, request: dict[str, Any], inputs: Inputs, seed: int) -> bytes:
    """Return an image of ours as a PNG with the text; the image of a PNG stays as it is, bit for bit."""
    return await asyncio.to_thread(_with_text, data, parameters(request, inputs, seed))


def parameters(request: dict[str, Any], inputs: Inputs, seed: int) -> str:
    """Return the text: the prompt with its LoRAs, the negative prompt, and a line of settings."""
    prompt = str(request.get("prompt", ""))
    loras = "".join(f" <lora:{ref.name}:{ref.weight:g}>" for ref in inputs.loras)
    settings: dict[str, object] = {
        "Steps": inputs.steps,
        "Sampler": inputs.sampler,
        "CFG scale": f"{inputs.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{inputs.width}x{inputs.height}",
        # The first ten characters, as the web UI writes and looks for them.
        "Model hash": inputs.base.sha256[:10],
        "Model": inputs.base.name,
    }
    if inputs.start is not None:
        settings["Denoising strength"] = f"{inputs.start.strength:g}"
    if inputs.clip_skip is not None:
        settings["Clip skip"] = inputs.clip_skip
    if inputs.vae is not None:
        settings["VAE"] = inputs.vae.name
    settings["Version"] = "tunesmith"
    lines = [prompt + loras]
    if request.get("negative_prompt"):
        lines.append(f"Negative prompt: {request['negative_prompt']}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    text = str(value)
    # As the web UI quotes: a value with a separator would end early.
    return f'"{text}"' if any(mark in text for mark in ',:\n"') else text


def _with_text(data: bytes, text: str) -> bytes:
    from PIL import Image, PngImagePlugin  # noqa: PLC0415 - the API starts without it

    info = PngImagePlugin.PngInfo()
    info.add_text(_KEY, text)
    out = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
        image.save(out, "PNG", pnginfo=info)
    return out.getvalue()
