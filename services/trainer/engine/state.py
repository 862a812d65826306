"""A checkpoint as one safetensors file: the step, the adapter's weights, the optimizer's state, and the class images."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.optimization import Adafactor

from services.trainer.engine.errors import BadCheckpointError
from shared.errors import public_reason

_FORMAT = "tunesmith-checkpoint-1"
_NOT_OPTIMIZER = {"class", "weight"}
"""The prefixes of tensors that are not the optimizer's."""


def save_state(
    path: Path,
    step: int,
    weights: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    class_latents: list[torch.Tensor],
    *,
    loss_scale: float,
) -> None:
    """Write the state after `step` steps. The file appears whole or not at all."""
    tensors = {f"class/{number:04}": latents for number, latents in enumerate(class_latents)}
    for name, weight in weights.items():
        tensors[f"weight/{name}"] = weight.detach()
        # A weight without a gradient has no moments: SDXL does not use the last layer of its text encoders.
        for kind, value in optimizer.state.get(weight, {}).items():
            # The optimizer's scalars follow from the step or the weight, so `load_state` makes them again.
            if isinstance(value, torch.Tensor) and value.dim():
                tensors[f"{kind}/{name}"] = value
    partial = path.with_name(f"{path.name}.partial")
    # The class images of a bucket may be views of one batch, and safetensors refuses tensors that share memory.
    whole = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(whole, partial, {"format": _FORMAT, "step": str(step), "loss_scale": str(loss_scale)})
    partial.replace(path)


def read_class_latents(path: Path) -> list[torch.Tensor]:
    """Return the latents of the class images. Raises BadCheckpointError."""
    tensors, _, _ = _read(path)
    return [tensor for name, tensor in sorted(tensors.items()) if name.startswith("class/")]


def load_state(path: Path, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Load a checkpoint into the weights and the optimizer; return its step and loss scale. Raises BadCheckpointError."""
    tensors, step, loss_scale = _read(path)
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind not in _NOT_OPTIMIZER:
            states.setdefault(name, {})[kind] = tensor
    for name, weight in weights.items():
        saved = tensors.get(f"weight/{name}")
        if saved is None or saved.shape != weight.shape:
            found = "nothing" if saved is None else f"shape {tuple(saved.shape)}"
            msg = f"checkpoint {path.name} has {found} for {name}, not shape {tuple(weight.shape)}; start a new tune"
            raise BadCheckpointError(msg)
        weight.data.copy_(saved)
        if kinds := states.get(name):
            # Adafactor counts steps in an int and computes its RMS at each step; AdamW counts in a tensor.
            numbers = {"step": step, "RMS": 0} if isinstance(optimizer, Adafactor) else {"step": torch.tensor(float(step))}
            optimizer.state[weight] = numbers | {kind: tensor.to(weight.device) for kind, tensor in kinds.items()}
    return step, loss_scale


def _read(path: Path) -> tuple[dict[str, torch.Tensor], int, float]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                msg = f"checkpoint {path.name} has format {metadata.get('format')!r}, not {_FORMAT!r}; start a new tune"
                raise BadCheckpointError(msg)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            return tensors, int(metadata["step"]), float(metadata.get("loss_scale", 1.0))
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"checkpoint {path.name} cannot be read: {public_reason(error)}; start a new tune"
        raise BadCheckpointError(msg) from error
