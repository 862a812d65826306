"""The data and the noise of a step, as functions of seed and step alone: a resumed run gets the same as an uninterrupted one."""

from hashlib import blake2b

import torch


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a generator for one purpose and one number, which is a step or an index.

    It is on the CPU, also for training on a GPU, so that the noise is the same on every device. The CPU's generator takes 32
    bits of a seed, so the three arguments are hashed into these.
    """
    digest = blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def batch_indices(seed: int, purpose: str, step: int, *, size: int, count: int) -> list[int]:
    """Return which `count` of `size` items are the batch of a step: each pass over the items is a new permutation.

    A batch may continue from one pass into the next, so that each item is seen equally often, give or take one.
    """
    passes: dict[int, list[int]] = {}
    indices: list[int] = []
    for position in range(step * count, (step + 1) * count):
        number, offset = divmod(position, size)
        if number not in passes:
            passes[number] = torch.randperm(size, generator=generator(seed, f"{purpose}-order", number)).tolist()
        indices.append(passes[number][offset])
    return indices
