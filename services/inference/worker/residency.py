"""The loaded models: checkpoints with their LoRAs, and others. What is unused for longest is evicted first.

A LoRA stays loaded, but switched off, between the requests that use it. A request without LoRAs, or with weight 0, gets the
unchanged base whatever is loaded.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from services.inference.worker.latents import Precision
from services.inference.worker.lora_switch import LoraSwitch
from services.inference.worker.materials import LoraFile
from services.inference.worker.text import TextCache
from shared.models import checkpoints
from shared.models.checkpoints import Components
from shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass
class Resident:
    """A loaded checkpoint, its loaded LoRAs, and the texts that it has read."""

    name: str
    components: Components
    loras: LoraSwitch
    texts: TextCache = field(default_factory=TextCache)

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules that hold weights."""
        return (self.components.unet, self.components.vae, *self.components.text_encoders)


Held = Resident | torch.nn.Module


class Residency:
    """The loaded models of a worker. Not thread-safe: the one thread that draws owns it.

    `max_bytes` limits their weights, the LoRAs and the texts together, with what a request needs besides. The models that a
    request needs stay loaded even above the limit.
    """

    def __init__(self, device: torch.device, *, max_bytes: int) -> None:
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = Precision(torch.bfloat16 if has_bfloat16 else None)
        self._max_bytes = max_bytes
        self._reserved = 0
        self._held: dict[str, Held] = {}
        self._used: dict[str, float] = {}
        self._in_use: set[str] = set()

    @property
    def held(self) -> list[str]:
        """The SHA-256 of each loaded model, the one unused for longest first."""
        return sorted(self._held, key=lambda name: self._used[name])

    def begin(self) -> None:
        """Start a request: models that earlier requests used may be evicted."""
        self._in_use.clear()
        self._reserved = 0

    def checkpoint(self, sha256: str, folder: Path, loras: Sequence[LoraFile] = ()) -> Resident:
        """Return the checkpoint with exactly these LoRAs switched on."""

        def load() -> Resident:
            components = checkpoints.load(folder, device=self.device, dtype=self.dtype, vae_dtype=torch.float32)
            return Resident(sha256, components, LoraSwitch(components))

        resident = self._get(sha256, folder, load)
        assert isinstance(resident, Resident)  # noqa: S101 - one file is never two kinds of model
        resident.loras.use(loras)
        self._make_room(0)
        return resident

    def module(
        self, sha256: str, place: Path, load: Callable[[torch.device, torch.dtype], torch.nn.Module], *, is_vae: bool = False
    ) -> Any:
        """Return a model other than a checkpoint, loaded by `load` unless it is loaded already; `place` is its file or folder."""
        return self._get(sha256, place, lambda: load(self.device, torch.float32 if is_vae else self.dtype))

    def reserve(self, size_bytes: int) -> None:
        """Keep this much free for the request, besides the models."""
        self._reserved = size_bytes
        self._make_room(0)

    def free(self) -> None:
        """Evict whatever the request does not need, after it ran out of memory."""
        self._make_room(self._max_bytes)

    def forget_used(self) -> None:
        """Drop the models of a request that failed: the failure may have left one of them half changed."""
        for name in self._in_use & self._held.keys():
            self._drop(name)
        self._in_use.clear()
        self._release()

    def _get(self, name: str, place: Path, load: Callable[[], Held]) -> Held:
        self._in_use.add(name)
        if name not in self._held:
            self._make_room(self._bytes_on_disk(place))
            self._held[name] = load()
        self._used[name] = time.monotonic()
        return self._held[name]

    def _bytes_on_disk(self, place: Path) -> int:
        """Return the memory that a file or folder will need, assuming that it holds half precision."""
        files = place.rglob("*.safetensors") if place.is_dir() else [place]
        return sum(file.stat().st_size for file in files) * self.dtype.itemsize // 2

    def _make_room(self, wanted: int) -> None:
        """Evict models and LoRAs, the one unused for longest first, until `wanted` bytes fit; those in use stay."""
        over = sum(map(_size_bytes, self._held.values())) + wanted + self._reserved - self._max_bytes
        unused: list[tuple[float, str, str]] = [(self._used[name], name, "") for name in self._held if name not in self._in_use]
        for name, held in self._held.items():
            if isinstance(held, Resident):
                unused += [(used, name, lora) for used, lora in held.loras.unused]
        for _, name, lora in sorted(unused):
            if over <= 0:
                return
            held = self._held.get(name)
            if lora and isinstance(held, Resident):
                size = held.loras.drop(lora)
            elif held is not None:
                size = _size_bytes(held)
                self._drop(name)
            else:
                # It went together with its checkpoint.
                continue
            over -= size
            log.info("model.evicted", sha256=lora or name, size_bytes=size)
            held = None
            self._release()

    def _drop(self, name: str) -> None:
        del self._held[name], self._used[name]

    def _release(self) -> None:
        if self.device.type == "cuda":
            # The next allocation may be one large block, and the freed memory is in many small blocks.
            torch.cuda.empty_cache()


def _size_bytes(held: Held) -> int:
    modules = held.modules if isinstance(held, Resident) else (held,)
    weights = sum(tensor.numel() * tensor.element_size() for module in modules for tensor in module.state_dict().values())
    return weights + (held.loras.size_bytes + held.texts.size_bytes if isinstance(held, Resident) else 0)
