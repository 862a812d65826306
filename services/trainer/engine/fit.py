"""How a training is made to fit its GPU before it begins."""

from typing import NamedTuple

import torch

from services.trainer.engine.config import Job
from services.trainer.engine.errors import OutOfMemoryError
from shared.tunes import memory
from shared.tunes.options import Prior


class Fit(NamedTuple):
    """Whether the backward pass computes activations again, and how many rows of a step are computed at once."""

    checkpointing: bool
    rows_at_once: int


def fit(job: Job, device: torch.device) -> Fit:
    """Return how the steps of a job fit its device. Raises OutOfMemoryError with the numbers if they do not.

    On a CPU all rows are computed at once: its memory is not planned.
    """
    if device.type != "cuda":
        return Fit(checkpointing=False, rows_at_once=_rows(job))
    free, _ = torch.cuda.mem_get_info(device)
    # Asking has opened the CUDA context, which the estimate counts as part of the process.
    return planned(job, free + memory.PROCESS_BYTES)


def planned(job: Job, available_bytes: float) -> Fit:
    """Return how the steps of a job fit this memory. Raises OutOfMemoryError."""
    p = job.parameters
    file_bytes = sum(path.stat().st_size for path in job.base_folder.rglob("*.safetensors"))
    load = memory.Load(
        engine=job.engine,
        weights=memory.weights_of(job.engine, job.native_size_px, file_bytes, None),
        rows=_rows(job),
        resolution_px=p.resolution,
        rank=p.rank,
        optimizer=p.optimizer,
        trains_text=p.text_encoder_learning_rate > 0,
        samples=bool(p.validation_prompts),
    )
    found = memory.fitted(load, available_bytes)
    if found is None:
        raise OutOfMemoryError(memory.refusal(load, available_bytes))
    return Fit(found.checkpointing, found.rows_at_once or load.rows)


def _rows(job: Job) -> int:
    p = job.parameters
    return p.batch_size + (p.prior_batch_size if p.prior is not Prior.NONE else 0)
