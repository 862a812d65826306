"""The axes of a grid: a field of the request, or `weight` for that of the LoRAs, with the values that it takes in turn."""

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tunesmith.fields import value_of
from tunesmith.local import fail

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?: *by *({_NUMBER}))?")
_STEPS = 5
"""The values of a range that names no step."""
_MOST_CELLS = 100


class Axis(NamedTuple):
    """A field and its values."""

    field: str
    values: list[Any]


def axes(given: Sequence[str]) -> list[Axis]:
    """Return the axes of `--grid` options. Exits when one cannot be read, or when the grid is too large."""
    found = [_axis(item) for item in given]
    if len(found) > 2:  # noqa: PLR2004 - a sheet has rows and columns
        fail(f"--grid: {len(found)} axes are given, and a sheet has two: leave one out")
    cells = 1
    for axis in found:
        cells *= len(axis.values)
    if cells > _MOST_CELLS:
        fail(f"--grid: it has {cells} cells, and the limit is {_MOST_CELLS}: give fewer values")
    return found


def cells(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return the fields of each cell, row by row; the last axis gives the columns."""
    names = [axis.field for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def applied(request: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """Return the request of a cell."""
    changed = request | {field: value for field, value in cell.items() if field != "weight"}
    if "weight" in cell:
        changed["loras"] = dict.fromkeys(request.get("loras", {}), cell["weight"])
    return changed


def _axis(item: str) -> Axis:
    field, equals, text = item.partition("=")
    if not field or not equals or not text:
        fail(f"--grid: {item!r} is not FIELD=VALUES: give it for example as --grid weight=0.4..1.2 or --grid steps=10,20,30")
    if span := _RANGE.fullmatch(text):
        return Axis(field, _between(item, *span.groups()))
    return Axis(field, [value_of(value) for value in text.split(",")])


def _between(item: str, first: str, last: str, step: str | None) -> list[int | float]:
    start, end = Decimal(first), Decimal(last)
    width = (end - start) / (_STEPS - 1) if step is None else Decimal(step)
    if not width or (end - start) / width < 0:
        fail(f"--grid: {item!r} has no values: write the smaller number first, and a step above 0")
    count = int((end - start) / width) + 1
    if count > _MOST_CELLS:
        fail(f"--grid: {item!r} has {count} values, and the limit is {_MOST_CELLS}: choose a larger step")
    values = [start + width * number for number in range(count)]
    whole = all(value == value.to_integral_value() for value in (*values, width))
    return [int(value) if whole else float(value) for value in values]
