"""Builds safetensors files and tars, field by field, as somebody writes them who wants to do harm."""

import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

BLOCK = 512
CONFIGS: dict[str, dict[str, Any]] = {
    "model_index.json": {"_class_name": "StableDiffusionPipeline"},
    "unet/config.json": {"sample_size": 8, "in_channels": 4},
    "vae/config.json": {"block_out_channels": [8, 8, 8, 8]},
    "text_encoder/config.json": {"hidden_size": 32},
}
"""The least that makes a folder a checkpoint."""


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    """Return a file with this header: JSON as it is, anything else is encoded."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tar_header(
    name: str = "unet/config.json",
    size: bytes = b"00000000000\0",
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    rest: bytes = b"",
) -> bytes:
    """Return one header with a checksum that fits. `rest` is what follows the magic."""
    block = bytearray(BLOCK)
    block[0:100] = name.encode()[:100].ljust(100, b"\0")
    block[100:124] = b"0000644\x000000000\x000000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[265 : 265 + len(rest)] = rest
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(number: int) -> bytes:
    """Return a size as eleven octal digits."""
    return b"%011o\0" % number


def binary(number: int) -> bytes:
    """Return a size as GNU tar writes what eleven octal digits cannot hold."""
    return (b"\xff" if number < 0 else b"\x80") + number.to_bytes(11, signed=number < 0)


def padded(data: bytes) -> bytes:
    """Return data up to the end of its last block."""
    return data + bytes(-len(data) % BLOCK)


def tar_file(*blocks: bytes) -> bytes:
    """Return these blocks, and the end of a tar."""
    return b"".join(blocks) + bytes(2 * BLOCK)


def pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    """Return a pax header with these records."""
    text = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        text += str(length).encode() + body
    return tar_header("pax", octal(len(text)), kind) + padded(text)


def checkpoint_tar(
    files: dict[str, bytes] | None = None,
    *,
    tar_format: int = tarfile.PAX_FORMAT,
    folders: Iterable[str] = (),
    has_end: bool = True,
) -> bytes:
    """Return a small checkpoint as Python packs one, with more files and folders, maybe without the blocks that end a tar."""
    buffer = io.BytesIO()
    contents = {name: json.dumps(document).encode() for name, document in CONFIGS.items()} | (files or {})
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for folder in folders:
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        end = archive.offset
    return buffer.getvalue() if has_end else buffer.getvalue()[:end]
