"""Names what a file is that was uploaded in place of an image or of weights, by its first bytes.

A reader that only says "not safetensors" leaves its user guessing. Most such files are of a few kinds: what a download made
(a Git LFS pointer, a web page), what an upload made (a form, base64), a pickle, or an archive. Those are named with the remedy.
Any other file gets the reader's own words.
"""

import re
from typing import Literal

from shared.errors import InvalidError
from shared.formats.files import Source, opened
from shared.formats.mistaken_text import text_kind

HEAD_BYTES = 4096
"""How much of a file is looked at."""
Wanted = Literal["image", "weights", "checkpoint"]
_NOT = {
    "image": "the file is not an image",
    "weights": "the file is not safetensors",
    "checkpoint": "the file is not a checkpoint",
}
_EXPECTED = {
    "image": ("a PNG image", "a JPEG image", "a WebP image", "an AVIF or HEIC image"),
    "weights": ("safetensors",),
    "checkpoint": ("safetensors", "a tar archive"),
}
_SAVE_SAFE = "save it as .safetensors with the program that made it, or take the .safetensors file of the same model"
_MAX_SAFETENSORS_HEADER = 2**32
_ARCHIVES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
)
_COMPRESSED = (
    (b"\x1f\x8b", "a file compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"\xfd7zXZ\x00", "a file compressed with xz"),
    (b"BZh", "a file compressed with bzip2"),
)
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop image"),
)
_OTHERS = (
    (b"GGUF", "a GGUF file, whose weights are quantized for other programs", "take the model's .safetensors file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _SAVE_SAFE),
    (b"\x93NUMPY", "a NumPy file", _SAVE_SAFE),
    (b"%PDF-", "a PDF document", "export the image from it and upload that"),
    (
        b"\x00\x05\x16\x07",
        "the file that macOS keeps beside another one for its attributes",
        "upload the file whose name has no ._ before it",
    ),
)
_AS_TEXT = re.compile(rb"\xef\xbf\xbdPNG|(?:\xef\xbf\xbd){3,4}[\x00-\x7f]|\xc2\x89PNG\r?\n|\xc3\xbf\xc3\x98\xc3\xbf")
"""A PNG or JPEG whose bytes were decoded as UTF-8 or Latin-1 and encoded again."""


def check(source: Source, wanted: Wanted) -> None:
    """Raise InvalidError, which names the file's kind and the remedy, when it is of a kind that is known not to be `wanted`."""
    with opened(source) as file:
        found = name(file.read(HEAD_BYTES), wanted)
        file.seek(0)
    if found is not None:
        raise InvalidError(found)


def name(head: bytes, wanted: Wanted) -> str | None:
    """Return what a file with these first bytes is and what to do; None when it may be `wanted`, or its kind is unknown."""
    kind = binary_kind(head)
    if kind is not None and kind in _EXPECTED[wanted]:
        return None
    for ask in (_pickle, _archive, _other, _of_text, _unwanted):
        found = ask(head, wanted)
        if found is not None:
            what, remedy = found
            return f"{_NOT[wanted]}: it is {what}; {remedy}"
    return None


def binary_kind(head: bytes) -> str | None:
    """Return the kind of the binary file that begins with these bytes; None when it is unknown."""
    # First: the length of a safetensors header may begin like a pickle or an image.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_SAFETENSORS_HEADER:
        return "safetensors"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP image"
    if head[4:8] == b"ftyp":
        is_image = head[8:11] in {b"avi", b"hei", b"mif", b"msf", b"hev"}
        return "an AVIF or HEIC image" if is_image and head[8:12] != b"avi1" else "a video"
    return next((kind for magic, kind in (*_IMAGES, *_ARCHIVES, *_COMPRESSED) if head.startswith(magic)), None)


def _pickle(head: bytes, wanted: Wanted) -> tuple[str, str] | None:
    # torch.save writes a zip whose first member is NAME/data.pkl; before version 1.6 it wrote a bare pickle.
    is_zipped = head.startswith(b"PK\x03\x04") and b"/data.pkl" in head
    is_bare = head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"} and binary_kind(head) is None
    if not (is_zipped or is_bare):
        return None
    remedy = "upload an image" if wanted == "image" else _SAVE_SAFE
    return "a pickle (.ckpt, .pt or .bin), which can run code when it is loaded", remedy


def _archive(head: bytes, wanted: Wanted) -> tuple[str, str] | None:
    for magic, kind in _COMPRESSED:
        if head.startswith(magic):
            return kind, "decompress it, and upload what was in it without Content-Encoding"
    for magic, kind in _ARCHIVES:
        if head.startswith(magic):
            packed = "pack the model's folder without compression: tar -cf model.tar -C FOLDER ."
            return kind, f"unpack it, and {packed if wanted == 'checkpoint' else 'upload each file in it by itself'}"
    return None


def _other(head: bytes, _wanted: Wanted) -> tuple[str, str] | None:
    if _AS_TEXT.match(head):
        return "an image whose bytes were read as text, which damages them", "read the file as binary and upload it again"
    return next(((what, remedy) for magic, what, remedy in _OTHERS if head.startswith(magic)), None)


def _of_text(head: bytes, _wanted: Wanted) -> tuple[str, str] | None:
    return text_kind(head, binary_kind)


def _unwanted(head: bytes, wanted: Wanted) -> tuple[str, str] | None:
    """Name a good file of another kind. Of images, the reader of images itself says which it takes."""
    kind = binary_kind(head)
    if kind is None or (wanted == "image" and kind.endswith(" image")):
        return None
    if kind == "a tar archive" and wanted == "weights":
        return kind, "unpack it, and upload the .safetensors file in it; for a checkpoint, create an asset of type checkpoint"
    if kind == "safetensors":
        return "a safetensors file", "create the asset with the type that the weights have, for example lora or checkpoint"
    remedy = "upload an image" if wanted == "image" else "upload the weights, or create an asset of type file for an image"
    return kind, remedy
