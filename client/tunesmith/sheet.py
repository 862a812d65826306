"""The demo's contact sheet: the training images, and the same prompts and seeds before and after the tune."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_CELL, _GAP, _MARGIN, _TEXT_ROW = 220, 14, 36, 26
_PAGE, _INK, _SOFT, _LINE = "#ffffff", "#1d2330", "#667085", "#e4e7ec"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write(
    path: Path,
    *,
    title: str,
    subtitle: str,
    training: Sequence[bytes],
    prompts: Sequence[str],
    before: Sequence[bytes],
    after: Sequence[bytes],
) -> None:
    """Write the sheet as a PNG; every picture is given encoded, `before` and `after` in the order of the prompts."""
    columns = max(len(training), len(prompts))
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    rows = [("Training images", training, []), ("Before: without the LoRA", before, []), ("After: with the LoRA", after, prompts)]
    height = _MARGIN + 84 + sum(_TEXT_ROW + 10 + _CELL + _GAP + (2 * _TEXT_ROW if labels else 8) for _, _, labels in rows) + 12
    sheet = Image.new("RGB", (width, height), _PAGE)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), title, _INK, _font(32))
    draw.text((_MARGIN, _MARGIN + 38), subtitle, _SOFT, _font(17))
    top = _MARGIN + 84
    for heading, pictures, labels in rows:
        draw.line((_MARGIN, top - 8, width - _MARGIN, top - 8), _LINE)
        draw.text((_MARGIN, top), heading, _INK, _font(18))
        top += _TEXT_ROW + 10
        for number, picture in enumerate(pictures):
            left = _MARGIN + number * (_CELL + _GAP)
            cell = Image.open(io.BytesIO(picture)).convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left, top))
            if labels:
                draw.multiline_text((left, top + _CELL + 6), _wrapped(draw, labels[number], _font(14)), _SOFT, _font(14))
        top += _CELL + _GAP + (2 * _TEXT_ROW if labels else 8)
    sheet.save(path, optimize=True)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Font) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > _CELL:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
