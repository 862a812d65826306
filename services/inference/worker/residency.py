"""What is loaded: checkpoints as pipelines, and LoRAs as adapters on them, the longest unused given up first.

A LoRA stays loaded, switched off, between the requests that use it: switching adapters takes 10 ms where loading takes
200. Whatever is loaded, a request without LoRAs, or with weight 0, sees the base exactly.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared.models import checkpoints, pipelines, samplers
from shared.models.checkpoints import Components


@dataclass
class Resident:
    """A loaded checkpoint with the LoRAs on it."""

    components: Components
    pipeline: Any
    loras: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def use_loras(self, wanted: Sequence[tuple[str, Path, float]], *, most: int) -> None:
        """Switch on exactly these LoRAs (sha256, file, weight), loading what is not loaded yet."""
        # Weight 0 is left out rather than multiplied by, so that it is the base bit by bit.
        active = [(sha256, file, weight) for sha256, file, weight in wanted if weight != 0]
        for sha256, file, _ in active:
            name = _adapter(sha256)
            if name not in self.loras:
                self.pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
                self.loras[name] = None
            self.loras.move_to_end(name)
        while len(self.loras) > max(most, len(active)):
            oldest, _ = self.loras.popitem(last=False)
            self.pipeline.delete_adapters(oldest)
        if active:
            self.pipeline.enable_lora()
            self.pipeline.set_adapters([_adapter(s) for s, _, _ in active], [weight for _, _, weight in active])
        elif self.loras:
            self.pipeline.disable_lora()


class Residency:
    """The loaded checkpoints of a worker. Not thread-safe: the one thread that draws owns it."""

    def __init__(self, device: torch.device, *, checkpoints_kept: int, loras_kept: int) -> None:
        self.device = device
        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._checkpoints_kept = checkpoints_kept
        self._loras_kept = loras_kept
        self._residents: OrderedDict[str, Resident] = OrderedDict()

    def get(self, sha256: str, folder: Path, loras: Sequence[tuple[str, Path, float]]) -> Resident:
        """Return the checkpoint with exactly these LoRAs switched on."""
        resident = self._residents.get(sha256)
        if resident is None:
            while len(self._residents) >= self._checkpoints_kept:
                self._residents.popitem(last=False)
            components = checkpoints.load(folder, device=self.device, dtype=self._dtype)
            pipeline = pipelines.build(components, samplers.make("DDIM", components.scheduler_folder))
            resident = self._residents[sha256] = Resident(components, pipeline)
        self._residents.move_to_end(sha256)
        try:
            resident.use_loras(loras, most=self._loras_kept)
        except Exception:
            # A LoRA that failed half-way may be in the model already: nobody may draw with it any more.
            del self._residents[sha256]
            raise
        return resident


def _adapter(sha256: str) -> str:
    # Module names may not hold dots or be numbers.
    return f"lora_{sha256[:16]}"
