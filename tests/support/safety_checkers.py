"""A safety checker for tests, which a setting names as it would an operator's own."""

from PIL import Image


class NoRed:
    """Scores an image by how red it is."""

    def check(self, image: Image.Image) -> float:
        return image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] / 255  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
