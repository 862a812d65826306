"""What notebooks show: an image, a curve, and a progress bar, as HTML without scripts and without other files."""

import base64
import html
from collections.abc import Sequence

_WIDTH, _HEIGHT = 480, 120
_SMOOTH = 0.9
"""The weight of the past in the smoothed curve, which starts at the first loss."""
_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def data_url(data: bytes) -> str:
    """Return an image as an address that holds the image itself."""
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def figure(url: str, caption: str) -> str:
    """Return an image with its caption."""
    return (
        '<figure style="display:inline-block;margin:4px;max-width:256px">'
        f'<img src="{html.escape(url)}" alt="{html.escape(caption)}" style="max-width:100%">'
        f'<figcaption style="font-size:12px">{html.escape(caption)}</figcaption></figure>'
    )


def tune(name: str, status: str, details: str, done: int, total: int, thumbnails: Sequence[str]) -> str:
    """Return a tune's name, status, progress bar and newest images."""
    bar = f'<progress max="{total}" value="{done}"></progress> {done}/{total}' if total else ""
    text = f"<b>{html.escape(name)}</b> {html.escape(status)} {html.escape(details)}"
    images = "".join(f'<img src="{html.escape(url)}" alt="" style="height:96px;margin:2px">' for url in thumbnails)
    return f"<div>{text}<br>{bar}<br>{images}</div>"


def curve(first_step: int, losses: Sequence[float | None]) -> str:
    """Return a chart of the loss: each step faint, the smoothed loss strong."""
    points = [(first_step + number, loss) for number, loss in enumerate(losses) if loss is not None]
    if not points:
        return "<div>no loss was reported yet</div>"
    smooth: list[tuple[int, float]] = []
    for step, loss in points:
        smooth.append((step, _SMOOTH * smooth[-1][1] + (1 - _SMOOTH) * loss if smooth else loss))
    values = [loss for _, loss in points]
    low, high = min(values), max(values)

    def line(of: Sequence[tuple[int, float]], style: str) -> str:
        x_scale = _WIDTH / max(1, points[-1][0] - points[0][0])
        y_scale = _HEIGHT / ((high - low) or 1)
        drawn = " ".join(f"{(x - points[0][0]) * x_scale:.1f},{(high - y) * y_scale:.1f}" for x, y in of)
        return f'<polyline points="{drawn}" fill="none" {style}/>'

    faint = line(points, 'stroke="#98a2b3" stroke-opacity="0.5"')
    strong = line(smooth, 'stroke="#6d28d9" stroke-width="2"')
    return (
        f'<figure style="margin:4px"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="loss by step">{faint}{strong}</svg>'
        f'<figcaption style="font-size:12px">loss {smooth[-1][1]:.4f} at step {points[-1][0]}, '
        f"between {low:.4f} and {high:.4f}</figcaption></figure>"
    )
