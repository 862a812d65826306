"""Draws the images of one request: loads models, encodes prompts, prepares images, and runs diffusers' pipeline."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image

from services.inference.inputs import DrawnImage, Inputs
from services.inference.worker import canvas as canvases
from services.inference.worker import control, embeddings
from services.inference.worker.canvas import Canvas
from services.inference.worker.materials import Materials
from services.inference.worker.refiner import Refiner, share_of_base
from services.inference.worker.residency import Residency, Resident
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.steps import OnStep, Steps
from services.inference.worker.text import Prompts, deepest, encode
from services.inference.worker.vaes import load_vae
from shared.models import pipelines, samplers
from shared.models.pipelines import Task
from shared.safety import Safety

FULL_SIZE_PX = 512
"""A checkpoint below this native size draws at that size, and the image is enlarged: a 64 px model cannot draw at 1024 px."""
_DIFFUSERS_PX = 8
"""Diffusers refuses sides that are not multiples of this, whatever the VAE."""
_JPEG_QUALITY = 95
StepCallback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class Painter:
    """Draws with loaded models, and loads missing ones. Not thread-safe: one thread owns it."""

    def __init__(self, residency: Residency, safety: Safety | None = None) -> None:
        self.residency = residency
        self._safety = safety

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> "Painter":
        """Build the process's painter on the configured device."""
        pipelines.preload()
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        residency = Residency(torch.device(device), max_bytes=settings.resident_bytes, loras_kept=settings.resident_loras)
        return cls(residency, Safety.from_settings(settings))

    def draw(self, inputs: Inputs, materials: Materials, on_step: OnStep) -> tuple[list[DrawnImage], list[str]]:
        """Return the encoded images in the order of their seeds, and notices.

        Images are drawn one at a time: in a batch, the last bits of an image depend on the other images, and a seed must give
        the same image when it is requested alone. Raises InvalidError, and what `on_step` raises.
        """
        notices: list[str] = []
        steps = Steps(on_step)
        planned: set[int] = set()

        def check(pipeline: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
            if id(pipeline) not in planned:
                planned.add(id(pipeline))
                steps.plan(len(inputs.seeds) * pipeline.num_timesteps)
            steps.did(state["latents"])
            return state

        self.residency.begin()
        # The models stay loaded: in inference mode they keep no graph of what was computed.
        with torch.inference_mode():
            draw_seed = self._prepare(inputs, materials, check, notices)
            return [self._checked(draw_seed(seed), inputs.image_encoding) for seed in inputs.seeds], notices

    def _checked(self, image: Image.Image, encoding: str) -> DrawnImage:
        """Return the encoded image, or none if the operator's safety checker refuses it."""
        verdict = self._safety.judge(image) if self._safety else None
        data = None if verdict and verdict.is_unsafe else _encoded(image, encoding)
        return DrawnImage(data, verdict.score if verdict else None)

    def _prepare(
        self, inputs: Inputs, materials: Materials, check: StepCallback, notices: list[str]
    ) -> Callable[[int], Image.Image]:
        """Return a function that draws the image of a seed."""
        resident = self.residency.checkpoint(inputs.base.sha256, materials.base, materials.loras)
        size = _run_size(inputs, resident, notices)
        canvas = _canvas(inputs, materials)
        task, start_options = _start_options(inputs, canvas, size)
        controlnet, control_options = self._control(inputs, materials, resident, canvas, size, task)
        options: dict[str, Any] = {
            **_prompt_options(inputs, materials, resident, notices),
            **start_options,
            **control_options,
            "guidance_scale": inputs.cfg_scale,
            "num_inference_steps": inputs.steps,
            "callback_on_step_end": check,
            **samplers.pipeline_options(inputs.sampler),
        }
        vae = self._vae(inputs, materials, resident)
        pipeline = pipelines.build(resident.components, _scheduler(inputs, resident), task=task, controlnet=controlnet, vae=vae)
        refiner = self._refiner(inputs, materials, task, controlnet, notices)
        if refiner is not None:
            options["denoising_end"] = share_of_base(inputs)

        def draw_seed(seed: int) -> Image.Image:
            # A scheduler keeps state while it runs, so each image gets a new one.
            pipeline.scheduler = _scheduler(inputs, resident)
            # Noise comes from the CPU, so that a seed gives the same image on every device.
            generator = torch.Generator("cpu").manual_seed(seed)
            output = pipeline(generator=generator, output_type="latent" if refiner else "pil", **options).images
            drawn = refiner.finish(output, generator, check) if refiner else output[0]
            return canvas.composed(drawn) if canvas else canvases.scaled(drawn, inputs.width, inputs.height)

        return draw_seed

    def _control(
        self, inputs: Inputs, materials: Materials, resident: Resident, canvas: Canvas | None, size: tuple[int, int], task: Task
    ) -> tuple[Any, dict[str, Any]]:
        wanted = inputs.control
        if wanted is None or materials.controlnet is None:
            return None, {}
        controlnet = self.residency.module(
            wanted.model.sha256, materials.controlnet, lambda device, dtype: control.load(materials.controlnet, device, dtype)
        )
        control.check_fits(controlnet, wanted.model.name, resident.components, inputs.base.name)
        asked = (inputs.width, inputs.height)
        box = canvas.box if canvas else (0, 0, *asked)
        followed = control.followed_image(wanted, materials.images, asked, box, size)
        name = "image" if task is Task.TEXT_TO_IMAGE else "control_image"
        return controlnet, {name: followed, **control.options(wanted)}

    def _vae(self, inputs: Inputs, materials: Materials, resident: Resident) -> Any:
        if inputs.vae is None or materials.vae is None:
            return None
        path, own = materials.vae, resident.components.vae
        # The loaded VAE scales latents as the checkpoint does, so the same file is loaded once for each checkpoint.
        name = f"{inputs.vae.sha256}-for-{inputs.base.sha256}"
        return self.residency.module(name, path, lambda device, dtype: load_vae(path, own, device=device, dtype=dtype))

    def _refiner(self, inputs: Inputs, materials: Materials, task: Task, controlnet: Any, notices: list[str]) -> Refiner | None:
        share = share_of_base(inputs)
        if inputs.refine is None or materials.refiner is None:
            return None
        if share is None or task is Task.INPAINTING or controlnet is not None:
            notices.append("use_refiner: ignored, because the refiner has no part in this request; the base drew alone")
            return None
        # A name of its own: a checkpoint that refines itself is loaded twice, once with LoRAs and once without.
        resident = self.residency.checkpoint(f"refiner-{inputs.refine.model.sha256}", materials.refiner)
        return Refiner(resident.components, inputs, share)


def run_size(width: int, height: int, native_px: int, divisor: int) -> tuple[int, int]:
    """Return the size to draw at: the size asked for, or for a small checkpoint its native area in the same aspect.

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


def _prompt_options(inputs: Inputs, materials: Materials, resident: Resident, notices: list[str]) -> Mapping[str, torch.Tensor]:
    components = resident.components
    if inputs.clip_skip is not None and inputs.clip_skip > (most := deepest(components)):
        notices.append(f"clip_skip: {inputs.clip_skip} is more than the {most} layers of {inputs.base.name}; {most} was used")
    return encode(
        components,
        Prompts(inputs.prompt, inputs.negative_prompt, inputs.prompt_2, inputs.negative_prompt_2),
        clip_skip=inputs.clip_skip,
        vectors=resident.loras.vectors | {word: embeddings.load(word, path, components) for word, path in materials.embeddings},
        zero_empty=components.zeros_for_empty_prompt,
    )


def _start_options(inputs: Inputs, canvas: Canvas | None, size: tuple[int, int]) -> tuple[Task, dict[str, Any]]:
    sides = {"width": size[0], "height": size[1]}
    if canvas is None or inputs.start is None:
        return Task.TEXT_TO_IMAGE, sides
    source, mask = canvas.model_input(*size)
    # At least one step of noise; the small excess compensates for the rounding of steps x strength.
    strength = max(inputs.start.strength, min(1.0, (1 + 1e-6) / inputs.steps))
    if mask is None:
        return Task.IMAGE_TO_IMAGE, {"image": source, "strength": strength}
    return Task.INPAINTING, {"image": source, "mask_image": mask, "strength": strength, **sides}


def _scheduler(inputs: Inputs, resident: Resident) -> Any:
    return samplers.make(inputs.sampler, resident.components.scheduler_folder, inputs.steps)


def _encoded(image: Image.Image, encoding: str) -> bytes:
    out = io.BytesIO()
    if encoding == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
