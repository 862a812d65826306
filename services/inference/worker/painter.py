"""Draws the images of one request: loads what it needs, and draws its images in batches that fit into the memory."""

import io
import math
import time
from collections import deque
from typing import Any

import torch
from PIL import Image

from services.inference.inputs import Drawing, DrawnImage, Inputs
from services.inference.worker import canvas as canvases
from services.inference.worker import control, embeddings
from services.inference.worker.canvas import Canvas
from services.inference.worker.denoise import Guide
from services.inference.worker.latents import Codec
from services.inference.worker.materials import Materials
from services.inference.worker.memory import activation_bytes
from services.inference.worker.residency import Residency, Resident
from services.inference.worker.scene import Finish, Scene, share_of_base
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.steps import DrawCancelledError, OnStep, Steps
from services.inference.worker.text import deepest
from services.inference.worker.vaes import load_vae
from shared.errors import TunesmithError
from shared.safety import Safety
from shared.telemetry import get_logger

log = get_logger(__name__)

FULL_SIZE_PX = 512
"""A checkpoint below this native size draws at that size, and the image is enlarged: a 64 px model cannot draw at 1024 px."""
_SIDE_PX = 8
"""Sides are multiples of this, whatever the VAE."""
_JPEG_QUALITY = 95
_BATCH = 4


class Painter:
    """Draws with loaded models, and loads missing ones. Not thread-safe: one thread owns it."""

    def __init__(self, residency: Residency, safety: Safety | None = None, *, batch: int = _BATCH) -> None:
        self.residency = residency
        self._safety = safety
        self._batch = batch

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> "Painter":
        """Build the process's painter on the configured device."""
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        residency = Residency(torch.device(device), max_bytes=settings.resident_bytes)
        return cls(residency, Safety.from_settings(settings), batch=settings.batch_images)

    def draw(self, inputs: Inputs, materials: Materials, on_step: OnStep) -> Drawing:
        """Return the encoded images in the order of their seeds, with notices and the model's time.

        Images of a request are drawn in batches; the last bits of an image depend on the others in its batch. Raises
        InvalidError, and what `on_step` raises. After any other error the request's models are loaded again when they are next
        needed.
        """
        self.residency.begin()
        try:
            # Not inference mode: tensors that are made in it can never be changed outside of it, and the models stay loaded.
            with torch.no_grad():
                return self._draw(inputs, materials, on_step)
        except (TunesmithError, DrawCancelledError):
            # These are raised before a model is changed, or between two steps.
            raise
        except BaseException:
            self.residency.forget_used()
            raise

    def test(self) -> None:
        """Compute on the device what the CPU computes as well. Raises RuntimeError if the results differ."""
        device, dtype = self.residency.device, self.residency.dtype
        generator = torch.Generator().manual_seed(0)
        image, kernel = torch.randn(1, 8, 32, 32, generator=generator), torch.randn(8, 8, 3, 3, generator=generator) / 8
        found = torch.nn.functional.conv2d(image.to(device, dtype), kernel.to(device, dtype), padding=1)
        rows = found.flatten(2).transpose(1, 2)
        found = torch.nn.functional.scaled_dot_product_attention(rows, rows, rows).float().cpu()
        rows = torch.nn.functional.conv2d(image, kernel, padding=1).flatten(2).transpose(1, 2)
        wanted = torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)
        if not torch.allclose(found, wanted, atol=0.05, rtol=0.05):
            msg = f"the device {device} computes wrong results"
            raise RuntimeError(msg)

    def _draw(self, inputs: Inputs, materials: Materials, on_step: OnStep) -> Drawing:
        notices: list[str] = []
        scene = self._scene(inputs, materials, notices)
        began = time.monotonic()
        images = self._in_batches(scene, Steps(on_step))
        took_s = time.monotonic() - began
        return Drawing([self._checked(image, inputs.image_encoding) for image in images], notices, took_s)

    def _in_batches(self, scene: Scene, steps: Steps) -> list[Image.Image]:
        """Return the images, drawn in smaller batches where the memory does not suffice."""
        seeds = scene.inputs.seeds
        batches = deque(seeds[first : first + self._batch] for first in range(0, len(seeds), self._batch))
        steps.plan(len(batches) * scene.steps)
        images: list[Image.Image] = []
        may_free = True
        while batches:
            batch = batches.popleft()
            self.residency.reserve(activation_bytes(scene.base.components, scene.size, len(batch)))
            try:
                images += scene.draw(batch, steps)
                continue
            except torch.OutOfMemoryError:
                if len(batch) == 1 and not may_free:
                    raise
            # Outside of the handler: the error's traceback holds the tensors of the failed draw.
            log.warning("batch.out_of_memory", images=len(batch))
            may_free = may_free and len(batch) > 1
            self.residency.free()
            smaller = [part for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]) if part]
            steps.plan(len(smaller) * scene.steps)
            batches.extendleft(reversed(smaller))
        return images

    def _checked(self, image: Image.Image, encoding: str) -> DrawnImage:
        """Return the encoded image, or none if the operator's safety checker refuses it."""
        verdict = self._safety.judge(image) if self._safety else None
        data = None if verdict and verdict.is_unsafe else _encoded(image, encoding)
        return DrawnImage(data, verdict.score if verdict else None)

    def _scene(self, inputs: Inputs, materials: Materials, notices: list[str]) -> Scene:
        """Load what the request needs. Raises InvalidError for a model that does not fit the checkpoint."""
        resident = self.residency.checkpoint(inputs.base.sha256, materials.base, materials.loras)
        components = resident.components
        codec = self._codec(inputs, materials, resident)
        size = _run_size(inputs, resident, codec.factor, notices)
        canvas = _canvas(inputs, materials)
        guide = self._guide(inputs, materials, resident, canvas, size)
        if inputs.clip_skip is not None and inputs.clip_skip > (most := deepest(components)):
            notices.append(f"clip_skip: {inputs.clip_skip} is more than the {most} layers of {inputs.base.name}; {most} was used")
        words = {word: embeddings.load(word, path, components) for word, path in materials.embeddings}
        return Scene(
            inputs=inputs,
            base=resident,
            codec=codec,
            size=size,
            canvas=canvas,
            guide=guide,
            finish=self._finish(inputs, materials, canvas, notices),
            vectors=resident.loras.vectors | words,
            # The path of an embedding has the SHA-256 of its bytes.
            state=(resident.loras.reads_text, tuple((word, str(path)) for word, path in materials.embeddings)),
        )

    def _guide(
        self, inputs: Inputs, materials: Materials, resident: Resident, canvas: Canvas | None, size: tuple[int, int]
    ) -> Guide | None:
        wanted, place = inputs.control, materials.controlnet
        if wanted is None or place is None:
            return None
        model = self.residency.module(wanted.model.sha256, place, lambda device, dtype: control.load(place, device, dtype))
        control.check_fits(model, wanted.model.name, resident.components, inputs.base.name)
        asked = (inputs.width, inputs.height)
        return control.guide(model, wanted, materials.images, asked, canvas.box if canvas else (0, 0, *asked), size)

    def _codec(self, inputs: Inputs, materials: Materials, resident: Resident) -> Codec:
        own, path = resident.components.vae, materials.vae
        if inputs.vae is None or path is None:
            return Codec(own, resident.name, self.residency.precision)
        # The loaded VAE scales latents as the checkpoint does, so the same file is loaded once for each checkpoint.
        name = f"{inputs.vae.sha256}-for-{inputs.base.sha256}"
        vae = self.residency.module(
            name, path, lambda device, dtype: load_vae(path, own, device=device, dtype=dtype), is_vae=True
        )
        return Codec(vae, name, self.residency.precision)

    def _finish(self, inputs: Inputs, materials: Materials, canvas: Canvas | None, notices: list[str]) -> Finish | None:
        share = share_of_base(inputs)
        if inputs.refine is None or materials.refiner is None:
            return None
        if share is None or (canvas is not None and canvas.mask is not None) or inputs.control is not None:
            notices.append("use_refiner: ignored, because the refiner has no part in this request; the base drew alone")
            return None
        # A name of its own: a checkpoint that refines itself is loaded twice, once with LoRAs and once without.
        resident = self.residency.checkpoint(f"refiner-{inputs.refine.model.sha256}", materials.refiner)
        return Finish(resident, Codec(resident.components.vae, resident.name, self.residency.precision), share)


def run_size(width: int, height: int, native_px: int, divisor: int) -> tuple[int, int]:
    """Return the size to draw at: the size asked for, or for a small checkpoint its native area in the same aspect.

    Sides are multiples of `divisor`, a power of two: the VAE's factor times the UNet's, or more.
    """
    if native_px >= FULL_SIZE_PX:
        return width, height
    scale = native_px / math.sqrt(width * height)
    wide, high = (max(divisor, round(side * scale / divisor) * divisor) for side in (width, height))
    return wide, high


def _run_size(inputs: Inputs, resident: Resident, factor: int, notices: list[str]) -> tuple[int, int]:
    info = resident.components.info
    unet: Any = resident.components.unet
    factor *= 2 ** (len(unet.config.block_out_channels) - 1)
    size = run_size(inputs.width, inputs.height, info.native_size_px, max(_SIDE_PX, factor))
    if size != (inputs.width, inputs.height):
        notices.append(
            f"{inputs.base.name} is a small checkpoint: drawn at {size[0]}x{size[1]}, enlarged to {inputs.width}x{inputs.height}"
        )
    return size


def _canvas(inputs: Inputs, materials: Materials) -> Canvas | None:
    return canvases.prepare(inputs.start, materials.images, inputs.width, inputs.height) if inputs.start else None


def _encoded(image: Image.Image, encoding: str) -> bytes:
    out = io.BytesIO()
    if encoding == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
