"""What a step sees, as a pure function of (seed, step): a resumed run meets the same data and the same noise."""

from hashlib import blake2b

import torch


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a generator on the CPU for one purpose and one number, a step or an index.

    The CPU's generator takes 32 bits of a seed, so the three are hashed into these; on a GPU the noise is drawn here too,
    and so is the same on every device.
    """
    digest = blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def drawn(seed: int, purpose: str, step: int, *, size: int, count: int) -> list[int]:
    """Return which `count` of `size` items step `step` sees: each pass over the items is a new permutation.

    Batches run on from one pass into the next, so that every item is seen equally often, give or take one.
    """
    passes: dict[int, list[int]] = {}
    indices: list[int] = []
    for position in range(step * count, (step + 1) * count):
        number, offset = divmod(position, size)
        if number not in passes:
            passes[number] = torch.randperm(size, generator=generator(seed, f"{purpose}-order", number)).tolist()
        indices.append(passes[number][offset])
    return indices
