"""The loaded models: checkpoints as pipelines with their LoRAs, and others. The one unused for longest is evicted first.

A LoRA stays loaded, but switched off, between the requests that use it. A request
without LoRAs, or with weight 0, gets the unchanged base whatever is loaded.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.inference.worker.lora_switch import LoraSwitch
from services.inference.worker.materials import LoraFile
from shared.models import checkpoints, pipelines, samplers
from shared.models.checkpoints import Components
from shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass
class Resident:
    """A loaded checkpoint and its loaded LoRAs."""

    components: Components
    pipeline: Any
    loras: LoraSwitch

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules that hold weights."""
        return (self.components.unet, self.components.vae, *self.components.text_encoders)


class Residency:
    """The loaded models of a worker. Not thread-safe: the one thread that draws owns it.

    `max_bytes` limits their weights together; the models that a request needs stay loaded even above the limit.
    """

    def __init__(self, device: torch.device, *, max_bytes: int, loras_kept: int) -> None:
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._max_bytes = max_bytes
        self._loras_kept = loras_kept
        self._held: OrderedDict[str, Resident | torch.nn.Module] = OrderedDict()
        self._in_use: set[str] = set()

    @property
    def held(self) -> list[str]:
        """The SHA-256 of each loaded model, the one unused for longest first."""
        return list(self._held)

    def begin(self) -> None:
        """Start a request: models that earlier requests used may be evicted."""
        self._in_use.clear()

    def checkpoint(self, sha256: str, folder: Path, loras: Sequence[LoraFile] = ()) -> Resident:
        """Return the checkpoint with exactly these LoRAs switched on."""

        def load() -> Resident:
            components = checkpoints.load(folder, device=self.device, dtype=self.dtype)
            pipeline = pipelines.build(components, samplers.make("DDIM", components.scheduler_folder))
            return Resident(components, pipeline, LoraSwitch(components))

        resident = self._get(sha256, folder, load)
        assert isinstance(resident, Resident)  # noqa: S101 - one file is never two kinds of model
        resident.loras.use(loras, most=self._loras_kept)
        self._make_room(0)
        return resident

    def module(self, sha256: str, place: Path, load: Callable[[torch.device, torch.dtype], torch.nn.Module]) -> Any:
        """Return a model other than a checkpoint, loaded by `load` unless it is loaded already; `place` is its file or folder."""
        return self._get(sha256, place, lambda: load(self.device, self.dtype))

    def _get(self, sha256: str, place: Path, load: Callable[[], Resident | torch.nn.Module]) -> Resident | torch.nn.Module:
        self._in_use.add(sha256)
        if sha256 not in self._held:
            self._make_room(self._bytes_on_disk(place))
            self._held[sha256] = load()
        self._held.move_to_end(sha256)
        return self._held[sha256]

    def _bytes_on_disk(self, place: Path) -> int:
        """Return the memory that a file or folder will need, assuming that it holds half precision."""
        files = place.rglob("*.safetensors") if place.is_dir() else [place]
        return sum(file.stat().st_size for file in files) * self.dtype.itemsize // 2

    def _make_room(self, wanted: int) -> None:
        sizes = {sha256: _size_bytes(held) for sha256, held in self._held.items()}
        for sha256 in [name for name in self._held if name not in self._in_use]:
            if sum(sizes.values()) + wanted <= self._max_bytes:
                return
            log.info("model.evicted", sha256=sha256, size_bytes=sizes.pop(sha256))
            del self._held[sha256]
            if self.device.type == "cuda":
                # The next allocation may be one large block, and the freed memory is in many small blocks.
                torch.cuda.empty_cache()


def _size_bytes(held: Resident | torch.nn.Module) -> int:
    modules = held.modules if isinstance(held, Resident) else (held,)
    weights = sum(tensor.numel() * tensor.element_size() for module in modules for tensor in module.state_dict().values())
    return weights + (held.loras.size_bytes if isinstance(held, Resident) else 0)
