"""Draws the pictures of one request: brings models, prompts and pictures together, and runs diffusers' pipeline."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image

from services.inference.inputs import Drawn, Inputs
from services.inference.worker import canvas as canvases
from services.inference.worker import control, embeddings
from services.inference.worker.canvas import Canvas
from services.inference.worker.materials import Materials
from services.inference.worker.refiner import Refiner, share_of_base
from services.inference.worker.residency import Residency, Resident
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.text import Prompts, deepest, encode
from services.inference.worker.vaes import load_vae
from shared.models import pipelines, samplers
from shared.models.pipelines import Task
from shared.safety import Safety

FULL_SIZE_PX = 512
"""Checkpoints below this native size draw at it, and the picture is enlarged: at 1024 px a 64 px model draws nothing."""
_DIFFUSERS_PX = 8
"""Diffusers refuses sides that are no multiples of this, whatever the VAE."""
_JPEG_QUALITY = 95
Step = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class StoppedError(Exception):
    """The worker has to go; the request is another's."""


class Painter:
    """Draws with what is loaded, and loads what is not. Not thread-safe: one thread owns it."""

    def __init__(self, residency: Residency, safety: Safety | None = None) -> None:
        self.residency = residency
        self._safety = safety

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> "Painter":
        """Build the process's painter on the device that is set, or found."""
        pipelines.preload()
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        residency = Residency(torch.device(device), max_bytes=settings.resident_bytes, loras_kept=settings.resident_loras)
        return cls(residency, Safety.from_settings(settings))

    def draw(self, inputs: Inputs, materials: Materials, stop: Callable[[], bool]) -> tuple[list[Drawn], list[str]]:
        """Return the encoded pictures, in the order of their seeds, and what the caller should know.

        Pictures are drawn one at a time: in a batch, the same seed gives other last bits depending on its neighbours, and a
        picture must come out the same when it is asked for alone. Raises InvalidError, and StoppedError once `stop` says so.
        """
        notices: list[str] = []

        def check(_pipeline: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
            if stop():
                raise StoppedError
            return state

        self.residency.begin()
        # The models stay as they were loaded: nothing here may keep a graph of what it computed.
        with torch.inference_mode():
            make = self._prepare(inputs, materials, check, notices)
            return [self._judged(make(seed), inputs.image_encoding) for seed in inputs.seeds], notices

    def _judged(self, image: Image.Image, encoding: str) -> Drawn:
        """Encode a picture, unless the operator's safety checker refuses it: then nobody ever sees it."""
        verdict = self._safety.judge(image) if self._safety else None
        data = None if verdict and verdict.is_unsafe else _encoded(image, encoding)
        return Drawn(data, verdict.score if verdict else None)

    def _prepare(self, inputs: Inputs, materials: Materials, check: Step, notices: list[str]) -> Callable[[int], Image.Image]:
        """Return what makes the picture of a seed."""
        resident = self.residency.checkpoint(inputs.base.sha256, materials.base, materials.loras)
        components = resident.components
        size = _run_size(inputs, resident, notices)
        canvas, text = _canvas(inputs, materials), _text(inputs, materials, resident, notices)
        options: dict[str, Any] = {
            **text,
            "guidance_scale": inputs.cfg_scale,
            "num_inference_steps": inputs.steps,
            "callback_on_step_end": check,
        }
        task, from_picture = _from_canvas(inputs, canvas, size)
        model, followed = self._control(inputs, materials, resident, canvas, size, task)
        vae = self._vae(inputs, materials, resident)
        pipeline = pipelines.build(components, _scheduler(inputs, resident), task=task, controlnet=model, vae=vae)
        options |= from_picture | followed
        refiner = self._refiner(inputs, materials, task, model, notices)
        if refiner is not None:
            options["denoising_end"] = share_of_base(inputs)

        def make(seed: int) -> Image.Image:
            # A scheduler keeps state while it runs: each picture gets a fresh one.
            pipeline.scheduler = _scheduler(inputs, resident)
            # Noise is drawn on the CPU, so that a seed means the same picture on every device.
            generator = torch.Generator("cpu").manual_seed(seed)
            drawn = pipeline(generator=generator, output_type="latent" if refiner else "pil", **options).images
            image = refiner.finish(drawn, generator, check) if refiner else drawn[0]
            return canvas.finished(image) if canvas else canvases.scaled(image, inputs.width, inputs.height)

        return make

    def _control(
        self, inputs: Inputs, materials: Materials, resident: Resident, canvas: Canvas | None, size: tuple[int, int], task: Task
    ) -> tuple[Any, dict[str, Any]]:
        wanted = inputs.control
        if wanted is None or materials.controlnet is None:
            return None, {}
        model = self.residency.module(
            wanted.model.sha256, materials.controlnet, lambda device, dtype: control.load(materials.controlnet, device, dtype)
        )
        control.check_fits(model, wanted.model.name, resident.components, inputs.base.name)
        asked = (inputs.width, inputs.height)
        picture = control.picture(wanted, materials.images, asked, canvas.box if canvas else (0, 0, *asked), size)
        name = "image" if task is Task.TEXT_TO_IMAGE else "control_image"
        return model, {name: picture, **control.arguments(wanted)}

    def _vae(self, inputs: Inputs, materials: Materials, resident: Resident) -> Any:
        if inputs.vae is None or materials.vae is None:
            return None
        path, own = materials.vae, resident.components.vae
        # Its latents are scaled as the checkpoint's are, so one file is another VAE for another checkpoint.
        name = f"{inputs.vae.sha256}-for-{inputs.base.sha256}"
        return self.residency.module(name, path, lambda device, dtype: load_vae(path, own, device=device, dtype=dtype))

    def _refiner(self, inputs: Inputs, materials: Materials, task: Task, model: Any, notices: list[str]) -> Refiner | None:
        share = share_of_base(inputs)
        if inputs.refine is None or materials.refiner is None:
            return None
        if share is None or task is Task.INPAINTING or model is not None:
            notices.append("use_refiner: the refiner has no part in this picture, which the base drew alone")
            return None
        # Under a name of its own: as its own refiner, a checkpoint is there twice, once with LoRAs and once without.
        resident = self.residency.checkpoint(f"refiner-{inputs.refine.model.sha256}", materials.refiner)
        return Refiner(resident.components, inputs, share)


def run_size(width: int, height: int, native_px: int, divisor: int) -> tuple[int, int]:
    """Return the size to draw at: as asked, or for a small checkpoint its native area in the aspect asked for.

    Sides are multiples of `divisor`, a power of two: the VAE's factor times the UNet's, or more.
    """
    if native_px >= FULL_SIZE_PX:
        return width, height
    scale = native_px / math.sqrt(width * height)
    wide, high = (max(divisor, round(side * scale / divisor) * divisor) for side in (width, height))
    return wide, high


def _run_size(inputs: Inputs, resident: Resident, notices: list[str]) -> tuple[int, int]:
    info = resident.components.info
    unet: Any = resident.components.unet
    factor = resident.pipeline.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)
    size = run_size(inputs.width, inputs.height, info.native_size_px, max(_DIFFUSERS_PX, factor))
    if size != (inputs.width, inputs.height):
        notices.append(
            f"{inputs.base.name} is a small checkpoint: drawn at {size[0]}x{size[1]}, enlarged to {inputs.width}x{inputs.height}"
        )
    return size


def _canvas(inputs: Inputs, materials: Materials) -> Canvas | None:
    return canvases.prepare(inputs.start, materials.images, inputs.width, inputs.height) if inputs.start else None


def _text(inputs: Inputs, materials: Materials, resident: Resident, notices: list[str]) -> Mapping[str, torch.Tensor]:
    components = resident.components
    if inputs.clip_skip is not None and inputs.clip_skip > (most := deepest(components)):
        notices.append(f"clip_skip: {inputs.clip_skip} is more than the {most} layers of {inputs.base.name}; {most} was taken")
    return encode(
        components,
        Prompts(inputs.prompt, inputs.negative_prompt, inputs.prompt_2, inputs.negative_prompt_2),
        clip_skip=inputs.clip_skip,
        vectors={word: embeddings.load(word, path, components) for word, path in materials.embeddings},
        zero_empty=components.zeros_for_empty_prompt,
    )


def _from_canvas(inputs: Inputs, canvas: Canvas | None, size: tuple[int, int]) -> tuple[Task, dict[str, Any]]:
    sides = {"width": size[0], "height": size[1]}
    if canvas is None or inputs.start is None:
        return Task.TEXT_TO_IMAGE, sides
    ground, mask = canvas.seen(*size)
    # The noise of at least one step; the little more makes up for the rounding of steps x strength.
    strength = max(inputs.start.strength, min(1.0, (1 + 1e-6) / inputs.steps))
    if mask is None:
        return Task.IMAGE_TO_IMAGE, {"image": ground, "strength": strength}
    return Task.INPAINTING, {"image": ground, "mask_image": mask, "strength": strength, **sides}


def _scheduler(inputs: Inputs, resident: Resident) -> Any:
    return samplers.make(inputs.sampler, resident.components.scheduler_folder)


def _encoded(image: Image.Image, encoding: str) -> bytes:
    out = io.BytesIO()
    if encoding == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
