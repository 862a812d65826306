"""Whether this client runs from a clone of Tunesmith, which has the local stack, or from the wheel, which has not."""

from pathlib import Path

URL = "https://github.com/tunesmith/tunesmith"
ROOT = Path(__file__).parents[2]
"""The folder of the clone, if this is one."""


def is_clone() -> bool:
    """Return whether this client runs from a clone.

    It looks at paths and not at imports, because another package in the user's environment may be called `deploy`.
    """
    return (ROOT / "deploy" / "local" / "__init__.py").is_file()
