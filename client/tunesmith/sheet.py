"""The demo's contact sheet: the same prompts and seeds without the tune and with it, below the training images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_CELL, _GAP, _MARGIN, _THUMB = 360, 16, 36, 104
_PAGE, _INK, _SOFT, _GRAY, _GREEN = "#ffffff", "#1d2330", "#667085", "#98a2b3", "#12805c"
_HEADER, _HEADING, _PROMPT = 156, 66, 40
_BAR = 6
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Row:
    """One row of the sheet: what it shows, said in two sizes, and an encoded image for each prompt."""

    heading: str
    remark: str
    images: Sequence[bytes]


def write(
    path: Path,
    *,
    title: str,
    subtitle: str,
    training: Sequence[bytes],
    prompts: Sequence[str],
    without: Row,
    tuned: Row,
) -> None:
    """Write the sheet as a PNG, one column for each prompt; every image is given encoded."""
    width = 2 * _MARGIN + len(prompts) * _CELL + (len(prompts) - 1) * _GAP
    height = _MARGIN + _HEADER + 2 * (_HEADING + _CELL + _GAP) + _PROMPT + _MARGIN // 2
    sheet = Image.new("RGB", (width, height), _PAGE)
    draw = ImageDraw.Draw(sheet)
    left = width - _MARGIN - len(training) * (_THUMB + 8) + 8
    draw.text((_MARGIN, _MARGIN - 6), title, _INK, _font(38))
    draw.multiline_text((_MARGIN, _MARGIN + 54), _wrapped(draw, subtitle, _font(19), left - 2 * _MARGIN), _SOFT, _font(19))
    draw.text((left, _MARGIN - 2), f"The {len(training)} training images", _SOFT, _font(17))
    for number, image in enumerate(training):
        sheet.paste(_scaled(image, _THUMB), (left + number * (_THUMB + 8), _MARGIN + 26))
    top = _MARGIN + _HEADER
    for row, colour in ((without, _GRAY), (tuned, _GREEN)):
        draw.rectangle((_MARGIN, top + 4, _MARGIN + _BAR, top + 46), colour)
        draw.text((_MARGIN + 20, top), row.heading, _INK, _font(34))
        beside = _MARGIN + 40 + draw.textlength(row.heading, _font(34))
        draw.text((beside, top + 14), row.remark, _SOFT, _font(19))
        for number, image in enumerate(row.images):
            sheet.paste(_scaled(image, _CELL), (_MARGIN + number * (_CELL + _GAP), top + _HEADING))
        top += _HEADING + _CELL + _GAP
    for number, prompt in enumerate(prompts):
        draw.text((_MARGIN + number * (_CELL + _GAP) + _CELL / 2, top), f"“{prompt}”", _INK, _font(17), anchor="ma")
    sheet.save(path, optimize=True)


def _scaled(image: bytes, side: int) -> Image.Image:
    return Image.open(io.BytesIO(image)).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
