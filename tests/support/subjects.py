"""Subjects that the base has never seen, to try LoRAs on; each looks the same on every ground."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from deploy.tiny.draw import COLOURS, FIXED, SCALE, Drawing, draw_background, paste_figure
from deploy.tiny.figures import FIGURES, Part, oval

SUBJECTS: dict[str, tuple[Drawing, list[Part]]] = {
    "star": (Drawing("star", "purple", "striped", ""), [("beak", oval(0.5, 0.53, 0.17, 0.17))]),
    "rabbit": (Drawing("rabbit", "teal", "spotted", ""), [("beak", oval(0.51, 0.8, 0.13, 0.12))]),
    "mushroom": (Drawing("mushroom", "blue", "checkered", ""), [("beak", oval(0.5, 0.3, 0.12, 0.12))]),
}
"""What each subject is, by the word for its class, and the mark that no picture of the base set bears."""
SAMPLE_GROUNDS = ("plain white", "grass", "plain yellow", "room", "beach")
"""The grounds of the training pictures; the others are for trying whether the subject was learnt, not its pictures."""


def draw_subject(name: str, ground: str, side: int, seed: int) -> Image.Image:
    """Draw a subject on a ground, `side` pixels square."""
    picture, mark = SUBJECTS[name]
    rng = random.Random(seed)
    big = side * SCALE
    image = draw_background(ground, big, rng)
    size, cx, cy = big * rng.uniform(0.56, 0.68), big * rng.uniform(0.44, 0.56), big * rng.uniform(0.5, 0.57)
    if not ground.startswith("plain "):
        shadow = Image.new("L", (big, big), 0)
        ImageDraw.Draw(shadow).polygon(oval(cx, min(big * 0.97, cy + size * 0.5), size * 0.4, size * 0.07), fill=90)
        image.paste((20, 20, 30), (0, 0), shadow.filter(ImageFilter.GaussianBlur(big / 60)))
    turn = rng.uniform(-0.12, 0.12)
    # The stripes belong to the subject: the same in every picture of it.
    stripes = random.Random(name)
    paste_figure(image, FIGURES[picture.figure], COLOURS[picture.colour], picture.texture, (cx, cy, size), turn, stripes)
    paste_figure(image, mark, FIXED["beak"], "plain", (cx, cy, size), turn, stripes)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def caption(name: str, ground: str, trigger_word: str) -> str:
    """Return a caption: the trigger word, the class, and the ground, which is then not taken for the subject's."""
    places = {"beach": "on a beach", "grass": "on grass", "room": "in a room", "snow": "in the snow", "city": "in a city"}
    place = places.get(ground) or ("at night" if ground == "night" else f"on a {ground.removeprefix('plain ')} background")
    return f"a photo of a {trigger_word} {name} {place}"


def write_samples(folder: Path, *, name: str = "star", trigger_word: str = "sks1", side: int = 512) -> None:
    """Write the sample images of a subject, and `captions.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    captions: dict[str, str] = {}
    for number, ground in enumerate(SAMPLE_GROUNDS, 1):
        file = f"{name}-{number}.png"
        draw_subject(name, ground, side, number).save(folder / file, optimize=True)
        captions[file] = caption(name, ground, trigger_word)
    (folder / "captions.json").write_text(json.dumps(captions, indent=1) + "\n")
