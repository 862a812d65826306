"""The pluggable safety checker: looks at pictures that are uploaded for training and at pictures that were drawn.

Tunesmith ships none, since which one is right depends on who runs it. The setting `safety_checker` names a class of the
operator's, as `package.module:Class`, which is made once, without arguments, in each process that uses it.
"""

import importlib
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, Self

from shared.settings import ServiceSettings

if TYPE_CHECKING:
    from PIL import Image


class SafetyChecker(Protocol):
    """What an operator's checker has to do. It is never called by two threads at a time."""

    def check(self, image: "Image.Image") -> float:
        """Return how likely the picture (RGB or greyscale, upright) is unsafe, from 0 to 1."""
        ...


@dataclass(frozen=True)
class SafetyVerdict:
    """What a checker said of one picture: its score from 0 to 1, and whether that reaches the threshold."""

    score: float
    is_unsafe: bool


class Safety:
    """The configured checker with its threshold."""

    def __init__(self, checker: SafetyChecker, threshold: float) -> None:
        self._checker = checker
        self._threshold = threshold
        self._lock = Lock()

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> Self | None:
        """Build the process's checker; None where none is configured.

        Raises ValueError, which should end the start, when the setting does not name a class with a `check`: pictures must
        not go unchecked because of a typing error.
        """
        if not settings.safety_checker:
            return None
        module, colon, name = settings.safety_checker.partition(":")
        try:
            checker: Any = getattr(importlib.import_module(module), name)() if colon else None
        except (ImportError, AttributeError) as error:
            msg = f"TUNESMITH_SAFETY_CHECKER: {settings.safety_checker!r} cannot be loaded: {error}"
            raise ValueError(msg) from error
        if not hasattr(checker, "check"):
            msg = f"TUNESMITH_SAFETY_CHECKER: {settings.safety_checker!r} is not module:Class of a class with a method check"
            raise ValueError(msg)
        return cls(checker, settings.safety_threshold)

    def judge(self, image: "Image.Image") -> SafetyVerdict:
        """Ask the checker; it may take as long as it takes, so call this in a thread.

        Raises what the checker raises, and ValueError for a score outside of 0 to 1: no verdict is not a good one.
        """
        with self._lock:
            score = float(self._checker.check(image))
        if not 0 <= score <= 1:
            msg = f"the safety checker answered {score}; a score from 0 to 1 is needed"
            raise ValueError(msg)
        return SafetyVerdict(score, is_unsafe=score >= self._threshold)
