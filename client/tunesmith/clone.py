"""Tells a clone of Tunesmith, which has the local stack, from the installed client, which is all that the wheel holds."""

from pathlib import Path

URL = "https://github.com/tunesmith/tunesmith"
ROOT = Path(__file__).parents[2]
"""The clone's folder, where this file lies in a clone."""


def is_clone() -> bool:
    """Return whether this client lies in a clone.

    The path decides and not the import system: another package in the user's environment may be called `deploy`.
    """
    return (ROOT / "deploy" / "local" / "__init__.py").is_file()
