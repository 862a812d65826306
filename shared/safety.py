"""The operator's safety checker: it scores images that are uploaded for training, and images that are generated.

The setting `safety_checker` names one: `opennsfw`, or a class of the operator's own as `package.module:Class`. Each process that
uses it makes one instance, without arguments, when it starts.
"""

import importlib
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, Self

from shared.settings import ServiceSettings

if TYPE_CHECKING:
    from PIL import Image

OWN = {"opennsfw": "shared.opennsfw:OpenNsfw"}
"""The checkers that come with Tunesmith, by the names that the setting has for them. Their packages are installed separately."""


class SafetyChecker(Protocol):
    """What an operator's checker implements. It is never called by two threads at a time."""

    def check(self, image: "Image.Image") -> float:
        """Return how likely it is, from 0 to 1, that the image (RGB or greyscale, upright) is unsafe."""
        ...


@dataclass(frozen=True)
class SafetyVerdict:
    """A checker's score of one image, from 0 to 1, and whether it reaches the threshold."""

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
        """Return the process's checker, or None when none is configured.

        Raises ValueError when the setting names no class with a method `check`, or its package is not installed. Let it end the
        start: a typing error in the setting must not let images pass unchecked.
        """
        if not settings.safety_checker:
            return None
        module, colon, name = OWN.get(settings.safety_checker, settings.safety_checker).partition(":")
        try:
            checker: Any = getattr(importlib.import_module(module), name)() if colon else None
        except (ImportError, AttributeError) as error:
            msg = f"TUNESMITH_SAFETY_CHECKER: {settings.safety_checker!r} cannot be loaded: {error}; name an installed class"
            if settings.safety_checker in OWN:
                msg = f"TUNESMITH_SAFETY_CHECKER: {settings.safety_checker!r} cannot be loaded: {error}; install locks/safety.txt"
            raise ValueError(msg) from error
        if not hasattr(checker, "check"):
            msg = (
                f"TUNESMITH_SAFETY_CHECKER: {settings.safety_checker!r} is not a class with a method check; "
                f"name one as package.module:Class, or {', '.join(OWN)}"
            )
            raise ValueError(msg)
        return cls(checker, settings.safety_threshold)

    def judge(self, image: "Image.Image") -> SafetyVerdict:
        """Return the checker's verdict. Call this in a thread: a checker may take long.

        Raises what the checker raises, and ValueError for a score outside of 0 to 1: an image without a score is not safe.
        """
        with self._lock:
            score = float(self._checker.check(image))
        if not 0 <= score <= 1:
            msg = f"the safety checker returned {score}; it must return a score from 0 to 1"
            raise ValueError(msg)
        return SafetyVerdict(score, is_unsafe=score >= self._threshold)
