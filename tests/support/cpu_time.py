"""A bound on the processor time of a reader, which shows that no input makes it quadratic."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

BOUND_S = 10.0
"""Far above what a linear reader needs on a busy core, and far below what a quadratic one needs for the inputs of the tests."""


@contextmanager
def bounded_cpu(bound_s: float = BOUND_S) -> Iterator[None]:
    """Assert that the block takes this thread less processor time; other threads and the garbage collector do not count."""
    collects = gc.isenabled()
    gc.disable()
    began = time.thread_time()
    try:
        yield
        took = time.thread_time() - began
    finally:
        if collects:
            gc.enable()
    assert took < bound_s, f"took {took:.1f} s of processor time"
