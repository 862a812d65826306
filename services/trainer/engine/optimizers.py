"""The optimizers that a tune may choose."""

from typing import Any

import torch
from transformers.optimization import Adafactor

from services.trainer.engine.config import Parameters
from shared.tunes.options import Optimizer


def make(groups: list[dict[str, Any]], p: Parameters) -> torch.optim.Optimizer:
    """Return the optimizer for groups of `{params, lr}`."""
    if p.optimizer is Optimizer.ADAFACTOR:
        # By default Adafactor scales each update by the size of its weights. LoRA's B starts at zero and would hardly move.
        return Adafactor(groups, scale_parameter=False, relative_step=False, warmup_init=False, weight_decay=p.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=p.weight_decay)
