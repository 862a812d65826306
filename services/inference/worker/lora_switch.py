"""Switches the LoRAs of a loaded checkpoint on and off, and leaves it as it was, bit by bit, when all are off."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from services.inference.worker import lora_merges, loras
from services.inference.worker.loras import LoadedLora, LowRank, Merge
from services.inference.worker.materials import LoraFile
from shared.models.checkpoints import Components

Vectors = dict[str, list[torch.Tensor]]


class LoraSwitch:
    """The loaded LoRAs of one checkpoint. They stay loaded until `drop`.

    Plain LoRAs are hooks of their modules: switching takes a millisecond, and half-precision weights lose nothing of them.
    Changes that cannot be a hook are merged, with the original weights kept in the machine's memory.
    """

    def __init__(self, components: Components) -> None:
        self._components = components
        self._loaded: dict[str, LoadedLora] = {}
        self._of_text: set[str] = set()
        self._used: dict[str, float] = {}
        self._active: list[tuple[str, float]] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._originals: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self.vectors: Vectors = {}
        """The textual inversions that come with the active LoRAs."""

    @property
    def loaded(self) -> list[str]:
        """The SHA-256 of each loaded LoRA."""
        return list(self._loaded)

    @property
    def reads_text(self) -> tuple[tuple[str, float], ...]:
        """The active LoRAs that change what the text encoders return: each one's SHA-256 and weight."""
        return tuple((sha256, weight) for sha256, weight in self._active if sha256 in self._of_text)

    @property
    def unused(self) -> list[tuple[float, str]]:
        """When each LoRA that is off was last used, and its SHA-256."""
        active = {sha256 for sha256, _ in self._active}
        return [(used, sha256) for sha256, used in self._used.items() if sha256 not in active]

    def drop(self, sha256: str) -> int:
        """Forget a LoRA that is off, and return its bytes."""
        del self._used[sha256]
        self._of_text.discard(sha256)
        return self._loaded.pop(sha256).size_bytes

    @property
    def size_bytes(self) -> int:
        """The memory of the loaded LoRAs."""
        return sum(lora.size_bytes for lora in self._loaded.values())

    @torch.no_grad()
    def use(self, wanted: Sequence[LoraFile]) -> None:
        """Switch on exactly these LoRAs, and load those that are missing.

        Raises InvalidError for a LoRA that does not fit, before anything is changed.
        """
        # A LoRA of weight 0 is left out, not multiplied by 0, so that the result equals the base bit for bit.
        active = [file for file in wanted if file.weight != 0]
        for file in active:
            if file.sha256 not in self._loaded:
                self._loaded[file.sha256] = loras.load(file, self._components)
                if self._changes_text(self._loaded[file.sha256]):
                    self._of_text.add(file.sha256)
            self._used[file.sha256] = time.monotonic()
        if self._active != (chosen := [(file.sha256, file.weight) for file in active]):
            self._off()
            try:
                self._on(chosen)
            except BaseException:
                self._off()
                raise

    def _changes_text(self, lora: LoadedLora) -> bool:
        read = {module for encoder in self._components.text_encoders for module in encoder.modules()}
        return bool(lora.vectors) or any(change.module in read for change in (*lora.pairs, *lora.merges))

    def _on(self, chosen: list[tuple[str, float]]) -> None:
        pairs: dict[torch.nn.Module, list[tuple[LowRank, float]]] = defaultdict(list)
        merges: dict[torch.nn.Module, list[tuple[Merge, float]]] = defaultdict(list)
        for sha256, strength in chosen:
            lora = self._loaded[sha256]
            for pair in lora.pairs:
                pairs[pair.module].append((pair, strength))
            for merge in lora.merges:
                merges[merge.module].append((merge, strength))
            self.vectors |= lora.vectors
        for module, some in merges.items():
            self._merge(module, some)
        self._hooks += [module.register_forward_hook(_hook(some)) for module, some in pairs.items()]
        self._active = chosen

    def _off(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter, original in self._originals:
            parameter.copy_(original)
        self._hooks, self._originals, self._active, self.vectors = [], [], [], {}

    def _merge(self, module: torch.nn.Module, merges: list[tuple[Merge, float]]) -> None:
        """Add the changes to a module's weight and bias. Each is computed from the original, so their order does not matter."""
        weight: Any = module.weight
        exact = weight.float()
        self._add(weight, [(lora_merges.of_weight(merge, exact), strength) for merge, strength in merges])
        if isinstance(bias := getattr(module, "bias", None), torch.nn.Parameter):
            self._add(bias, [(lora_merges.of_bias(merge), strength) for merge, strength in merges])

    def _add(self, parameter: torch.nn.Parameter, changes: list[tuple[torch.Tensor | None, float]]) -> None:
        some = [(change, strength) for change, strength in changes if change is not None]
        if not some:
            return
        self._originals.append((parameter, parameter.detach().to("cpu", copy=True)))
        merged = parameter.float()
        for change, strength in some:
            merged = merged + change.to(parameter.device).reshape(parameter.shape) * strength
        parameter.copy_(merged)


def _hook(pairs: list[tuple[LowRank, float]]) -> Callable[[torch.nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    def add(module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        source = inputs[0]
        for pair, strength in pairs:
            if isinstance(module, torch.nn.Conv2d):
                inner = F.conv2d(source, pair.down, None, module.stride, module.padding, module.dilation)
                change = F.conv2d(inner, pair.up)
            else:
                change = F.linear(F.linear(source, pair.down), pair.up)
            output = torch.add(output, change, alpha=strength)
        return output

    return add
