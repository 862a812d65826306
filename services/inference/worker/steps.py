"""The hook that is called between the steps of a draw: it reports progress, and it can end the draw."""

from collections.abc import Callable
from typing import Any

OnStep = Callable[[int, int, Any], None]
"""Takes the steps done, all steps of the request, and the latents [images, channels, height, width] of the images being drawn.

The latents are a tensor of torch, which the service does not import. The steps of a request's images are counted together. The
hook runs in the thread that draws. It ends the draw by raising DrawCancelledError.
"""


class DrawCancelledError(Exception):
    """The hook ended the draw: the worker stops, the claim is lost, or nobody waits for the images. The models stay usable."""


class Steps:
    """Counts the steps of a request, and calls its hook after each."""

    def __init__(self, hook: OnStep) -> None:
        self._hook = hook
        self._done = 0
        self._planned = 0

    def plan(self, steps: int) -> None:
        """Expect this many more steps."""
        self._planned += steps

    def did(self, latents: Any) -> None:
        """Count a step and call the hook. Raises what the hook raises."""
        self._done += 1
        self._hook(self._done, max(self._planned, self._done), latents)


def never(_step: int, _steps: int, _latents: Any) -> None:
    """Do nothing: the hook of a draw that nobody watches."""
