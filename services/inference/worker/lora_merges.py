"""What the kinds of LoRA that are merged add to a weight: LoHa, LoKr, DoRA, and changes of weights, biases and norms."""

from collections.abc import Mapping
from typing import Any

import torch

from services.inference.worker.loras import Merge, whole_down
from shared.formats.lora.adapters import Kind
from shared.formats.lora.keys import Factor

_CORE = "i j k l, i p, j r -> p r k l"
"""A core with its outer matrices (rank, rows) and (rank, columns): Tucker's decomposition of a kernel."""


def of_weight(merge: Merge, weight: torch.Tensor) -> torch.Tensor | None:
    """Return what the change at full strength adds to a weight in float32, None for a change of the bias alone.

    A plain LoRA adds nothing here: it acts beside the module.
    """
    adapter = merge.adapter
    tensors = {factor: tensor.to(weight.device).float() for factor, tensor in merge.tensors.items()}
    magnitude = tensors.get(Factor.MAGNITUDE)
    if adapter.size is None or (adapter.kind is Kind.LORA and magnitude is None):
        return None
    change = (_product(adapter.kind, tensors) * adapter.scale).reshape(weight.shape)
    if magnitude is None:
        return change
    is_peft = "lora_magnitude_vector" in adapter.factors[Factor.MAGNITUDE]
    return _with_magnitude(weight + change, magnitude, is_peft=is_peft) - weight


def of_bias(merge: Merge) -> torch.Tensor | None:
    """Return what the change at full strength adds to a bias in float32."""
    parts: list[torch.Tensor] = []
    if (bias := merge.tensors.get(Factor.DIFF_BIAS)) is not None:
        parts.append(bias.float())
    if (bias := merge.tensors.get(Factor.UP_BIAS)) is not None:
        parts.append(bias.float() * merge.adapter.scale)
    return torch.stack(parts).sum(0) if parts else None


def _product(kind: Kind, tensors: Mapping[Factor, torch.Tensor]) -> torch.Tensor:
    if kind is Kind.LORA:
        return tensors[Factor.UP].flatten(1) @ whole_down(tensors).flatten(1)
    if kind is Kind.LOHA:
        return _half(tensors, "1") * _half(tensors, "2")
    if kind is Kind.LOKR:
        first, second = _side(tensors, "1"), _side(tensors, "2")
        # The first matrix does not reach into the cells of a kernel.
        return torch.kron(first.reshape(*first.shape, *(1 for _ in second.shape[2:])), second.contiguous())
    return tensors[Factor.DIFF]


def _half(tensors: Mapping[Factor, torch.Tensor], number: str) -> torch.Tensor:
    a, b = tensors[Factor(f"hada_w{number}_a")], tensors[Factor(f"hada_w{number}_b")]
    core = tensors.get(Factor(f"hada_t{number}"))
    return a @ b if core is None else torch.einsum(_CORE, core, a, b)


def _side(tensors: Mapping[Factor, torch.Tensor], number: str) -> torch.Tensor:
    whole = tensors.get(Factor(f"lokr_w{number}"))
    if whole is not None:
        return whole
    a, b = tensors[Factor(f"lokr_w{number}_a")], tensors[Factor(f"lokr_w{number}_b")]
    core: Any = tensors.get(Factor.LOKR_T2) if number == "2" else None
    return a @ b if core is None else torch.einsum(_CORE, core, a, b)


def _with_magnitude(weight: torch.Tensor, magnitude: torch.Tensor, *, is_peft: bool) -> torch.Tensor:
    """Return the weight with the norms of DoRA: one for each output, or, as LyCORIS and OneTrainer may have it, for each input.

    PEFT has outputs only. In other files the shape tells: (outputs, 1), or (1, inputs).
    """
    outputs, inputs = weight.shape[:2]
    is_of_outputs = is_peft or magnitude.shape[0] == outputs or magnitude.numel() != inputs
    shape = [1] * weight.dim()
    shape[0 if is_of_outputs else 1] = -1
    summed = tuple(range(1, weight.dim())) if is_of_outputs else (0, *range(2, weight.dim()))
    norm = weight.square().sum(dim=summed, keepdim=True).sqrt() + torch.finfo(weight.dtype).eps
    return weight * (magnitude.reshape(shape) / norm)
