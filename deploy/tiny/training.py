"""What the training of every part shares: the image set, the learning rate, a step of descent, saved states."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Report = Callable[[str], None]
REPORT_EVERY = 100


def learning_rate(step: int, steps: int, peak: float, warm_up: float = 0.03) -> float:
    """Return the learning rate of a step: a linear warm-up over the share `warm_up`, then half a cosine to 2 % of the peak."""
    done = step / steps
    return peak * min(1.0, done / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def to_input(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 pixels (n, 64, 64, 3) as the VAE's input (n, 3, 64, 64) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def descend(
    optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], loss: torch.Tensor, *, rate: float
) -> None:
    """Take one step of gradient descent. The norm of the gradient is clipped to 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def load_set(folder: Path) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Return an image set's pixels (n, 64, 64, 3), captions and labels (n, 4)."""
    captions = (folder / "captions.txt").read_text().split("\n")
    return torch.from_numpy(np.load(folder / "pixels.npy")), captions, torch.from_numpy(np.load(folder / "labels.npy"))


def keep(
    path: Path, step: int, model: Any, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the state after `step` steps: model, AdamW's moments and moving average. The file is replaced as a whole."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in (average or {}).items()}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    tensors["step"] = torch.tensor(step)
    draft = path.with_suffix(".draft")
    save_file({name: value.contiguous() for name, value in tensors.items()}, draft)
    draft.replace(path)


def restore(path: Path, model: Any, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor] | None = None) -> int:
    """Read what `keep` wrote into model, optimizer and moving average. Return the number of finished steps."""
    tensors = load_file(path)
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    for name, value in (average or {}).items():
        value.copy_(tensors[f"average/{name}"])
    step = int(tensors["step"])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
        }
    return step
