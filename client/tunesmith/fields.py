"""Fields of a request that are given as FIELD=VALUE."""

import json
from typing import Any

from tunesmith.local import fail


def fields(option: str, given: list[str] | None) -> dict[str, Any]:
    """Return the fields: a value is JSON where it can be read as such (0.5, true, ["a"]), and text otherwise."""
    return dict(_field(option, item) for item in given or [])


def _field(option: str, item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not name or not equals:
        fail(f"{option}: {item!r} is not FIELD=VALUE: give it for example as {option} rank=32")
    return name, value_of(text)


def value_of(text: str) -> Any:
    """Return a value as JSON where it can be read as such, and as text otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text
