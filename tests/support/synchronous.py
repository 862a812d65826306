"""Writes the synchronous client from the asynchronous one, so that the two cannot differ.

`python -m tests.support.synchronous` writes it, and a test compares what is there.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "client" / "tunesmith"
_BY_HAND = {"__init__.py", "runtime.py"}
_WORDS = {
    r"async (def|with|for)\b": r"\1",
    r"\bawait ": "",
    r"\b__a(enter|exit)__": r"__\1__",
    r"\ba(close|read|iter_lines|iter_bytes)\b": r"\1",
    r"\bAsync(?=[A-Z])": "",
    r"\btunesmith\.asynchronous\b": "tunesmith.synchronous",
}
NOTE = "Written from `{}` by `python -m tests.support.synchronous`."


def written() -> dict[Path, str]:
    """Return each module of the synchronous client with the text that it must have."""
    found: dict[Path, str] = {}
    for source in sorted((PACKAGE / "asynchronous").glob("*.py")):
        if source.name not in _BY_HAND:
            text = source.read_text()
            for word, plain in _WORDS.items():
                text = re.sub(word, plain, text, flags=re.MULTILINE)
            head, _, rest = text.partition('"""\n')
            note = NOTE.format(f"asynchronous/{source.name}")
            found[PACKAGE / "synchronous" / source.name] = _formatted(f'{head}\n\n{note}\n"""\n{rest}')
    return found


def _formatted(text: str) -> str:
    ruff = [Path(sys.executable).parent / "ruff"]
    name = ["--stdin-filename", str(PACKAGE / "synchronous" / "module.py"), "-"]
    fixed = [*ruff, "check", "--fix-only", "--quiet", "--unsafe-fixes", "--select", "I,C416,UP028,UP034", *name]
    for command in (fixed, [*ruff, "format", "--quiet", *name]):
        text = subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=60).stdout
    return text


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text)
