"""Style presets: words that are added to both prompts. `styles.json` has them by name."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shared.errors import InvalidError

_NONE = {"", "base"}


@dataclass(frozen=True)
class Style:
    """The words that a style adds to the prompt and to the negative prompt."""

    prompt: str
    negative: str


@cache
def table() -> dict[str, Style]:
    """Return every style by OctoAI's name for it; `base` adds nothing and is not in the table."""
    document = json.loads(Path(__file__).with_name("styles.json").read_text())
    return {name: Style(**style) for name, style in document.items()}


def apply(name: str | None, prompt: str, negative: str) -> tuple[str, str]:
    """Return both prompts with the words of the style added. Raises InvalidError for an unknown name."""
    if name is None or name in _NONE:
        return prompt, negative
    if name not in table():
        msg = f"style_preset: {name[:50]!r} is unknown; choose one of base, {', '.join(table())}"
        raise InvalidError(msg, loc=("body", "style_preset"))
    style = table()[name]
    return _joined(prompt, style.prompt), _joined(negative, style.negative)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
