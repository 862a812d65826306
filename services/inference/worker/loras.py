"""Loads a LoRA for a loaded checkpoint: finds the modules that it changes, and checks that every change fits.

Nothing is changed here, so a LoRA that does not fit costs its own request and no other. Plain LoRAs act beside their modules,
in two small products. Other kinds are merged into the weights when they are switched on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from safetensors import safe_open

from services.inference.worker.materials import LoraFile
from shared.errors import InvalidError
from shared.formats.lora import reader
from shared.formats.lora.adapters import Adapter, Kind
from shared.formats.lora.keys import Factor
from shared.formats.lora.names import Part
from shared.models.checkpoints import Components


@dataclass(frozen=True)
class LowRank:
    """A plain LoRA of one module: `up` x `down`, with alpha folded into `up`."""

    module: torch.nn.Module
    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True)
class Merge:
    """A change that is merged into a module's weight or bias."""

    module: torch.nn.Module
    adapter: Adapter
    tensors: Mapping[Factor, torch.Tensor]


@dataclass(frozen=True)
class LoadedLora:
    """A LoRA in memory, for one loaded checkpoint."""

    pairs: list[LowRank] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    vectors: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    """The textual inversions that come with it: a word, and its vectors for each text encoder."""

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        tensors = [tensor for pair in self.pairs for tensor in (pair.down, pair.up)]
        tensors += [tensor for merge in self.merges for tensor in merge.tensors.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load(file: LoraFile, components: Components) -> LoadedLora:
    """Return the LoRA. Raises InvalidError, which names it, for one that does not fit the checkpoint."""
    unet: Any = components.unet
    blocks = unet.config.layers_per_block
    try:
        lora = reader.read(file.path, blocks if isinstance(blocks, int) else blocks[0])
        loaded = LoadedLora()
        with safe_open(file.path, framework="pt") as tensors:
            for adapter in lora.adapters:
                found = {factor: tensors.get_tensor(name) for factor, name in adapter.factors.items()}
                _add(loaded, adapter, found, _module(adapter, components))
            for bundle in lora.bundles:
                parts = [bundle.tensors[part] for part in (Part.TEXT_ENCODER, Part.TEXT_ENCODER_2) if part in bundle.tensors]
                loaded.vectors[bundle.word] = [torch.atleast_2d(tensors.get_tensor(name)) for name in parts]
        _check_vectors(loaded.vectors, components)
    except InvalidError as error:
        msg = f"loras: {file.name!r} cannot be used with this checkpoint: {error.message}"
        raise InvalidError(msg, loc=("body", "loras", file.name)) from error
    return loaded


def _add(loaded: LoadedLora, adapter: Adapter, tensors: dict[Factor, torch.Tensor], module: torch.nn.Module) -> None:
    weight: Any = module.weight
    _check_fit(adapter, module)
    is_plain = adapter.kind is Kind.LORA and Factor.MAGNITUDE not in tensors
    if is_plain:
        pair = _low_rank(module, adapter, tensors)
        if not (pair.up.isfinite().all() and pair.down.isfinite().all()):
            msg = (
                f"{adapter.names[0]!r} has values beyond {torch.finfo(weight.dtype).max:g}, the largest of {weight.dtype}; scale "
                "it down and save it again"
            )
            raise InvalidError(msg)
        loaded.pairs.append(pair)
    if not is_plain or {Factor.DIFF_BIAS, Factor.UP_BIAS} & tensors.keys():
        loaded.merges.append(Merge(module, adapter, tensors))


def _low_rank(module: torch.nn.Module, adapter: Adapter, tensors: Mapping[Factor, torch.Tensor]) -> LowRank:
    weight: Any = module.weight
    down, up = whole_down(tensors), tensors[Factor.UP].float().flatten(1) * adapter.scale
    kernel = weight.shape[1:]
    down, up = down.reshape(-1, *kernel), up.reshape(*up.shape, *(1 for _ in kernel[1:]))
    return LowRank(module, down.to(weight.device, weight.dtype), up.to(weight.device, weight.dtype))


def whole_down(tensors: Mapping[Factor, torch.Tensor]) -> torch.Tensor:
    """Return a LoRA's `down`, with the kernel of a convolution in three parts multiplied into it."""
    down = tensors[Factor.DOWN].float()
    if (mid := tensors.get(Factor.MID)) is None:
        return down
    return torch.einsum("o r k l, r i -> o i k l", mid.float(), down.flatten(1))


def _module(adapter: Adapter, components: Components) -> torch.nn.Module:
    encoders = components.text_encoders
    roots: dict[Part, torch.nn.Module] = {Part.UNET: components.unet}
    roots |= dict(zip((Part.TEXT_ENCODER, Part.TEXT_ENCODER_2), encoders, strict=False))
    root = roots.get(adapter.part)
    # transformers 5.6 removed the level `text_model` from CLIPTextModel, but not from the class with a projection.
    for name in (adapter.module, f"text_model.{adapter.module}"):
        try:
            found = root.get_submodule(name) if root is not None else None
        except AttributeError:
            continue
        if found is not None and isinstance(getattr(found, "weight", None), torch.Tensor):
            return found
    msg = f"{adapter.names[0]!r} is for {adapter.part}.{adapter.module}, which the checkpoint does not have"
    raise InvalidError(msg)


def _check_fit(adapter: Adapter, module: torch.nn.Module) -> None:
    weight: Any = module.weight
    has_rows, has_columns = weight.shape[0], prod(weight.shape[1:])
    # The weight of a norm is no matrix: only its values themselves can be changed.
    is_possible = weight.dim() > 1 or adapter.kind is Kind.DIFF
    if adapter.size is not None and (adapter.size != (has_rows, has_columns) or not is_possible):
        rows, columns = adapter.size
        msg = (
            f"{adapter.names[0]!r} changes a weight of {rows} x {columns}, but {adapter.part}.{adapter.module} of the checkpoint "
            f"has {has_rows} x {has_columns}"
        )
        raise InvalidError(msg)
    bias = getattr(module, "bias", None)
    for factor in (Factor.DIFF_BIAS, Factor.UP_BIAS):
        shape = adapter.shapes.get(factor)
        if shape is not None and (bias is None or shape != tuple(bias.shape)):
            msg = f"{adapter.factors[factor]!r} does not fit the bias of {adapter.part}.{adapter.module}"
            raise InvalidError(msg)
    magnitude = adapter.shapes.get(Factor.MAGNITUDE)
    if magnitude is not None and (adapter.size is None or prod(magnitude) not in {weight.shape[0], weight.shape[1]}):
        msg = f"{adapter.factors[Factor.MAGNITUDE]!r} has the shape {list(magnitude)}, but the weight has {list(weight.shape)}"
        raise InvalidError(msg)


def _check_vectors(vectors: Mapping[str, list[torch.Tensor]], components: Components) -> None:
    widths = [encoder.config.hidden_size for encoder in components.text_encoders]
    for word, some in vectors.items():
        if (found := [tensor.shape[-1] for tensor in some]) != widths:
            msg = f"its textual inversion {word!r} is {found} wide; the checkpoint's text encoders need {widths}"
            raise InvalidError(msg)
