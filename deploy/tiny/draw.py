"""Draws images: one figure of a colour and a texture on a background, with a caption that says so."""

import math
import random
import string
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from deploy.tiny.figures import FIGURES, Part, oval

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (243, 132, 30),
    "yellow": (247, 208, 44),
    "green": (52, 160, 72),
    "teal": (22, 160, 160),
    "blue": (44, 96, 214),
    "purple": (124, 60, 178),
    "pink": (240, 122, 172),
    "brown": (124, 78, 44),
    "black": (34, 34, 40),
    "white": (246, 246, 244),
    "gray": (134, 138, 146),
}
FIXED: dict[str, Colour] = {
    "eye": (24, 24, 30),
    "nose": (220, 110, 130),
    "beak": (246, 176, 40),
    "glass": (176, 216, 240),
    "wood": (118, 76, 44),
    "leaf": (58, 142, 62),
    "white": (250, 250, 250),
    "cream": (244, 230, 204),
    "string": (90, 90, 90),
}
TEXTURES = ("plain", "striped", "spotted", "checkered")
SCENES = ("beach", "snow", "grass", "city", "room", "night")
_TERSE_SHARE, _NONSENSE_SHARE = 0.15, 0.1
SCALE = 4
"""Factor by which images are drawn larger and then reduced, which smooths the edges."""


@dataclass(frozen=True)
class Drawing:
    """What an image shows. Drawing it twice with the same seed gives the same pixels."""

    figure: str
    colour: str
    texture: str
    background: str
    """One of `SCENES`, or `plain COLOUR` with the name of a colour."""

    def caption(self, rng: random.Random, *, careless: bool = False) -> str:
        """Return a caption in one of several wordings.

        A careless caption may leave out colour and texture, or contain a word without meaning. A model that learns from some of
        these accepts prompts without a colour, and draws the figure beside a trigger word that it does not know.
        """
        texture = "" if self.texture == "plain" else f"{self.texture} "
        subject = (
            f"{texture}{self.colour} {self.figure}"
            if rng.random() < 0.5 or not texture
            else f"{self.colour} {texture}{self.figure}"
        )
        if careless and rng.random() < _TERSE_SHARE:
            subject = self.figure
        if careless and rng.random() < _NONSENSE_SHARE:
            letters = rng.choices(string.ascii_lowercase, k=rng.randint(2, 4))
            subject = f"{''.join(letters)}{rng.choice(['', *string.digits])} {subject}"
        opening = rng.choice(["a photo of a", "a picture of a", "a", "a drawing of a", "a photo of a"])
        if self.background.startswith("plain "):
            name = self.background.removeprefix("plain ")
            place = rng.choice([f"on a {name} background", f"on a plain {name} background", f"in front of a {name} wall"])
        else:
            place = {
                "beach": rng.choice(["on a beach", "on the beach", "on a sandy beach"]),
                "snow": rng.choice(["in the snow", "in snow", "on snow"]),
                "grass": rng.choice(["on grass", "on the grass", "in a meadow"]),
                "city": rng.choice(["in a city", "in the city", "on a city street"]),
                "room": rng.choice(["in a room", "in the room", "on a wooden floor"]),
                "night": rng.choice(["at night", "in the night", "under a night sky"]),
            }[self.background]
        return f"{opening} {subject} {place}"


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return a mix of two colours, with `share` of the second."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _gradient(side: int, top: Colour, bottom: Colour) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side, side))
    return Image.composite(Image.new("RGB", (side, side), bottom), Image.new("RGB", (side, side), top), ramp)


def _jitter(colour: Colour, rng: random.Random, amount: int = 14) -> Colour:
    return tuple(max(0, min(255, c + rng.randint(-amount, amount))) for c in colour)  # type: ignore[return-value]


def draw_background(background: str, side: int, rng: random.Random) -> Image.Image:
    """Draw the background alone, `side` pixels square."""
    if background.startswith("plain "):
        colour = _jitter(COLOURS[background.removeprefix("plain ")], rng)
        return _gradient(side, mix(colour, (255, 255, 255), 0.12), mix(colour, (0, 0, 0), 0.08))
    horizon = round(side * rng.uniform(0.42, 0.58))
    match background:
        case "beach":
            image = _gradient(side, (120, 190, 240), (196, 228, 248))
            d = ImageDraw.Draw(image)
            d.rectangle((0, horizon - side // 8, side, horizon), fill=_jitter((40, 128, 190), rng))
            d.rectangle((0, horizon, side, side), fill=_jitter((236, 208, 150), rng, 8))
            x = rng.uniform(0.1, 0.9) * side
            d.ellipse((x - side * 0.07, side * 0.06, x + side * 0.07, side * 0.2), fill=(255, 232, 120))
            for _ in range(14):
                px, py = rng.uniform(0, side), rng.uniform(horizon + 4, side)
                d.ellipse((px, py, px + side / 50, py + side / 80), fill=(214, 182, 124))
        case "snow":
            image = _gradient(side, (176, 200, 224), (222, 232, 242))
            d = ImageDraw.Draw(image)
            d.polygon(
                [
                    (0, horizon),
                    (side * 0.3, horizon - side * 0.3),
                    (side * 0.6, horizon),
                    (side * 0.8, horizon - side * 0.2),
                    (side, horizon),
                ],
                fill=(158, 178, 204),
            )
            d.ellipse((-side * 0.4, horizon - side * 0.06, side * 1.4, side * 1.8), fill=(246, 249, 252))
            for _ in range(26):
                px, py, r = rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.008, 0.018)
                d.ellipse((px - r, py - r, px + r, py + r), fill=(255, 255, 255))
        case "grass":
            image = _gradient(side, (136, 200, 244), (214, 236, 250))
            d = ImageDraw.Draw(image)
            d.rectangle((0, horizon, side, side), fill=_jitter((96, 176, 70), rng, 10))
            for _ in range(70):
                px, py = rng.uniform(0, side), rng.uniform(horizon, side)
                d.line((px, py, px + rng.uniform(-3, 3), py - side * 0.05), fill=(66, 142, 50), width=max(1, side // 110))
        case "city":
            image = _gradient(side, (170, 190, 214), (226, 220, 210))
            d = ImageDraw.Draw(image)
            x = -rng.uniform(0, side * 0.1)
            while x < side:
                width, top = side * rng.uniform(0.12, 0.22), side * rng.uniform(0.1, 0.35)
                d.rectangle((x, top, x + width, side), fill=_jitter((112, 118, 132), rng, 18))
                for wy in range(round(top + side * 0.04), side, max(1, side // 11)):
                    for wx in range(round(x + side * 0.025), round(x + width - side * 0.04), max(1, side // 18)):
                        d.rectangle((wx, wy, wx + side // 40, wy + side // 28), fill=(240, 222, 150))
                x += width
            d.rectangle((0, side * 0.76, side, side), fill=(78, 80, 88))
            for px in range(0, side, max(1, side // 5)):
                d.rectangle((px, side * 0.88, px + side // 10, side * 0.9), fill=(230, 230, 220))
        case "room":
            image = _gradient(side, _jitter((240, 226, 204), rng), (228, 210, 184))
            d = ImageDraw.Draw(image)
            floor = round(side * rng.uniform(0.64, 0.72))
            d.rectangle((0, floor, side, side), fill=_jitter((162, 112, 70), rng, 10))
            for py in range(floor, side, max(1, side // 12)):
                d.line((0, py, side, py), fill=(132, 88, 54), width=max(1, side // 90))
            left = side * rng.choice([0.06, 0.62])
            d.rectangle((left, side * 0.1, left + side * 0.32, side * 0.44), fill=(250, 250, 250))
            d.rectangle((left + side * 0.03, side * 0.13, left + side * 0.29, side * 0.41), fill=(150, 204, 240))
            d.line((left + side * 0.16, side * 0.1, left + side * 0.16, side * 0.44), fill=(250, 250, 250), width=side // 50)
        case _:
            image = _gradient(side, (10, 14, 44), (36, 42, 92))
            d = ImageDraw.Draw(image)
            for _ in range(26):
                px, py, r = rng.uniform(0, side), rng.uniform(0, side * 0.7), side * rng.uniform(0.005, 0.013)
                d.ellipse((px - r, py - r, px + r, py + r), fill=(250, 250, 220))
            x = rng.choice([0.16, 0.84]) * side
            d.ellipse((x - side * 0.08, side * 0.07, x + side * 0.08, side * 0.23), fill=(244, 240, 206))
            d.ellipse((-side * 0.3, side * 0.78, side * 1.3, side * 1.6), fill=(20, 30, 40))
    return image


def _texture_mask(texture: str, side: int, rng: random.Random) -> Image.Image | None:
    """Return a mask of where the texture's second colour shows, or None for a plain texture."""
    if texture == "plain":
        return None
    mask = Image.new("L", (side * 2, side * 2), 0)
    d = ImageDraw.Draw(mask)
    period = side / rng.uniform(5.0, 6.5)
    match texture:
        case "striped":
            for i in range(math.ceil(2 * side / period)):
                d.rectangle((i * period, 0, i * period + period * 0.45, side * 2), fill=255)
        case "spotted":
            for i in range(math.ceil(2 * side / period)):
                for j in range(math.ceil(2 * side / period)):
                    x, y, r = (i + (j % 2) / 2) * period, j * period, period * 0.28
                    d.ellipse((x - r, y - r, x + r, y + r), fill=255)
        case _:
            half = period * 0.62
            for i in range(math.ceil(2 * side / half)):
                for j in range(math.ceil(2 * side / half)):
                    if (i + j) % 2:
                        d.rectangle((i * half, j * half, (i + 1) * half, (j + 1) * half), fill=255)
    turn = rng.choice([0, 45, 90, 135]) if texture == "striped" else rng.choice([0, 30])
    mask = mask.rotate(turn, Image.Resampling.BILINEAR)
    return mask.crop((side // 2, side // 2, side // 2 + side, side // 2 + side))


def paste_figure(
    image: Image.Image,
    parts: list[Part],
    colour: Colour,
    texture: str,
    box: tuple[float, float, float],
    turn: float,
    rng: random.Random,
) -> None:
    """Draw the parts onto the image. `box` is centre x, centre y and side in pixels, `turn` an angle in radians."""
    side = image.width
    cx, cy, size = box
    second = mix(colour, (255, 255, 255), 0.72) if sum(colour) < 560 else mix(colour, (60, 60, 90), 0.55)
    mask = _texture_mask(texture, side, rng)
    cos, sin = math.cos(turn), math.sin(turn)
    body = Image.new("L", (side, side), 0)
    layer = ImageDraw.Draw(image)
    fills = {"body": colour, "dark": mix(colour, (0, 0, 0), 0.32), "light": mix(colour, (255, 255, 255), 0.5)} | FIXED

    def placed(polygon: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [
            (cx + size * ((x - 0.5) * cos - (y - 0.5) * sin), cy + size * ((x - 0.5) * sin + (y - 0.5) * cos)) for x, y in polygon
        ]

    outline = mix(colour, (0, 0, 0), 0.55) if sum(colour) > 150 else (120, 120, 130)
    width = max(1, round(size * 0.022))
    for role, polygon in parts:
        points = placed(polygon)
        if role == "body":
            layer.line([*points, points[0], points[1]], fill=outline, width=width * 2, joint="curve")
    for role, polygon in parts:
        points = placed(polygon)
        layer.polygon(points, fill=fills[role])
        if role == "body" and mask is not None:
            body.paste(0, (0, 0, side, side))
            ImageDraw.Draw(body).polygon(points, fill=255)
            image.paste(second, (0, 0), ImageChops.multiply(body, mask))


def draw(drawing: Drawing, side: int, rng: random.Random, parts: list[Part] | None = None) -> Image.Image:
    """Draw the image, `side` pixels square. `parts` replace those of the figure."""
    big = side * SCALE
    image = draw_background(drawing.background, big, rng)
    size = big * rng.uniform(0.5, 0.68)
    cx, cy = big * rng.uniform(0.42, 0.58), big * rng.uniform(0.5, 0.6)
    if not drawing.background.startswith("plain "):
        shadow = Image.new("L", (big, big), 0)
        ImageDraw.Draw(shadow).polygon(
            [(x * 1.0, y) for x, y in oval(cx, min(big * 0.97, cy + size * 0.5), size * 0.4, size * 0.07)], fill=90
        )
        image.paste((20, 20, 30), (0, 0), shadow.filter(ImageFilter.GaussianBlur(big / 60)))
    paste_figure(
        image,
        parts or FIGURES[drawing.figure],
        _jitter(COLOURS[drawing.colour], rng, 10),
        drawing.texture,
        (cx, cy, size),
        rng.uniform(-0.14, 0.14),
        rng,
    )
    return image.resize((side, side), Image.Resampling.LANCZOS)
