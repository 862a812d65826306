"""A contact sheet of generated images: an HTML page that holds them, or, with Pillow, one image."""

import html
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tunesmith import notebook
from tunesmith.local import fail

_CELL, _GAP, _TEXT = 256, 8, 20
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color-scheme: light dark }}
.sheet {{ display: grid; grid-template-columns: repeat({columns}, minmax(0, 320px)); gap: 12px }}
figure {{ margin: 0 }} img {{ width: 100%; display: block }} figcaption {{ padding-top: 4px; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<div class="sheet">
{figures}
</div>
</html>
"""


class Cell(NamedTuple):
    """An image of a sheet, encoded, and what stands below it."""

    data: bytes
    label: str


def write(path: Path, title: str, cells: Sequence[Cell], columns: int) -> None:
    """Write the sheet: a page for a path that ends in .html, an image for .png and .jpg. Exits for any other."""
    if path.suffix.lower() == ".html":
        figures = "\n".join(
            f'<figure><img src="{notebook.data_url(cell.data)}" alt="">'
            f"<figcaption>{html.escape(cell.label)}</figcaption></figure>"
            for cell in cells
        )
        path.write_text(_PAGE.format(title=html.escape(title), columns=columns, figures=figures), encoding="utf-8")
        return
    _write_image(path, cells, columns)


def check(path: Path) -> None:
    """Exit unless a sheet can be written to this path, before any image is generated for it."""
    if path.suffix.lower() not in {".html", ".png", ".jpg"}:
        fail(f"--sheet: {path} ends with {path.suffix or 'nothing'}: give a path that ends with .html, .png or .jpg")
    if path.suffix.lower() != ".html" and find_spec("PIL") is None:
        fail(f"--sheet: {path} needs Pillow: run `pip install 'tunesmith[images]'`, or give a path that ends with .html")


def _write_image(path: Path, cells: Sequence[Cell], columns: int) -> None:
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - an extra of the wheel

    rows = -(-len(cells) // columns)
    size = (columns * (_CELL + _GAP) + _GAP, rows * (_CELL + _TEXT + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for number, cell in enumerate(cells):
        left = _GAP + number % columns * (_CELL + _GAP)
        top = _GAP + number // columns * (_CELL + _TEXT + _GAP)
        image = Image.open(io.BytesIO(cell.data)).convert("RGB")
        image.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top))
        draw.text((left, top + _CELL + 2), cell.label, "black", font)
    sheet.save(path)
