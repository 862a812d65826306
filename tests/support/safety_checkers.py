"""A safety checker for tests, named by a setting as an operator's own is."""

from PIL import Image


class NoRed:
    """A picture is as unsafe as it is red."""

    def check(self, image: Image.Image) -> float:
        return image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] / 255  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
