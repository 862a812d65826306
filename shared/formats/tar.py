"""The members of an uncompressed tar, found without reading their contents.

Python's `tarfile` reads long names and pax headers whole, whatever length they announce, follows chains of them by recursion,
and makes files out of the holes of sparse members. This reader takes plain files and folders alone, from what GNU tar, macOS's
tar and Python write for them, and nothing it reads is longer than 64 KiB.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from pydantic import BaseModel

from shared.errors import InvalidError
from shared.formats.files import size_of

MAX_MEMBERS = 200
"""Files and folders together."""
MAX_EXTENSION_BYTES = 64 * 2**10
"""Of a long name or a pax header."""
MAX_NAME_BYTES = 255
_MAX_EXTENSIONS = 4
"""Headers that may precede a member's own: a global one, its pax header, its long name and a long target."""
BLOCK_BYTES = 512
_FILES, _FOLDER, _SPARSE = b"0\x007", b"5", b"S"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_GLOBAL = b"xX", b"g"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_AGAIN = "pack the folder again, for example with `tar -cf model.tar -C FOLDER .`"
# The folders of a hub's cache hold symbolic links.
_LINKS_AGAIN = {
    b"1": "pack the folder again with the files themselves: `tar --hard-dereference -cf model.tar -C FOLDER .`",
    b"2": "pack the folder again with the files that its links point to: `tar -chf model.tar -C FOLDER .`",
}


class Member(BaseModel):
    """A file or a folder of a tar: its name, and where its bytes are."""

    name: str
    is_folder: bool
    start: int
    size: int


@dataclass
class _Extensions:
    """What the headers before a member say of it."""

    name: str | None = None
    size: int | None = None
    count: int = field(default=0)


def is_tar(file: BinaryIO) -> bool:
    """Say whether the file begins with a tar's header."""
    file.seek(0)
    block = file.read(BLOCK_BYTES)
    return len(block) == BLOCK_BYTES and any(block) and _checksum_fits(block)


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield the files and folders. Raises InvalidError for anything else, and for what is damaged or out of bounds."""
    end, position, count = size_of(file), 0, 0
    said = _Extensions()
    while (block := _header(file, position)) is not None:
        position += BLOCK_BYTES
        kind, size = block[156:157], _number(block[124:136])
        if kind in _PAX + _PAX_GLOBAL + _LONG_NAME + _LONG_LINK:
            text = _extension(file, position, size, said)
            if kind in _PAX + _PAX_GLOBAL:
                _read_pax(text, said, is_global=kind in _PAX_GLOBAL)
            elif kind == _LONG_NAME:
                said.name = said.name or _decoded(text.rstrip(b"\0"))
            position += _padded(size)
            continue
        name = _clean_name(said.name or _plain_name(block))
        is_folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
        size = size if said.size is None else said.size
        count += 1
        if count > MAX_MEMBERS:
            msg = f"the tar holds more than {MAX_MEMBERS} files and folders"
            raise _refused(msg)
        if not is_folder:
            _check_file(name, kind)
        if size < 0 or (is_folder and size) or position + size > end:
            msg = f"the tar's {name!r} has {size} bytes by its header, which do not fit in the file's {end} bytes"
            raise _refused(msg)
        yield Member(name=str(PurePosixPath(name)), is_folder=is_folder, start=position, size=size)
        position += _padded(size)
        said = _Extensions()
    if said.count:
        raise _refused("the tar ends in a header that belongs to no file")


def _check_file(name: str, kind: bytes) -> None:
    if kind == _SPARSE:
        raise _sparse(name)
    if kind not in _FILES:
        msg = f"the tar holds {name!r}, {_KINDS.get(kind, 'something else')}; only files and folders are allowed"
        raise _refused(msg, _LINKS_AGAIN.get(kind, _AGAIN))
    if not PurePosixPath(name).parts:
        msg = f"the tar holds a file whose name is {name!r}, which names a folder"
        raise _refused(msg)


def _header(file: BinaryIO, position: int) -> bytes | None:
    """Return the block at a position; None at the tar's end."""
    file.seek(position)
    block = file.read(BLOCK_BYTES)
    if not any(block):
        return None
    if len(block) < BLOCK_BYTES or not _checksum_fits(block):
        raise _refused("the tar is damaged: it has a header that is truncated, or whose checksum is wrong")
    return block


def _checksum_fits(block: bytes) -> bool:
    digits = block[148:156].strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        return False
    # The field itself counts as spaces. Old programs added bytes as signed numbers.
    rest = block[:148] + block[156:]
    unsigned = 256 + sum(rest)
    return int(digits, 8) in {unsigned, unsigned - 256 * sum(byte > 127 for byte in rest)}  # noqa: PLR2004 - a byte's sign


def _number(digits: bytes) -> int:
    if digits[0] in {0x80, 0xFF}:
        # GNU tar's: binary, for what eleven octal digits cannot hold.
        return int.from_bytes(digits[1:]) - (256 ** (len(digits) - 1) if digits[0] == 0xFF else 0)  # noqa: PLR2004 - the sign
    text = digits.strip(b"\0 ")
    if text.strip(b"01234567"):
        raise _refused("the tar is damaged: a size in it is no number")
    return int(text or b"0", 8)


def _extension(file: BinaryIO, position: int, size: int, said: _Extensions) -> bytes:
    said.count += 1
    if said.count > _MAX_EXTENSIONS:
        msg = f"the tar has more than {_MAX_EXTENSIONS} long names or pax headers before one file"
        raise _refused(msg)
    if not 0 <= size <= MAX_EXTENSION_BYTES:
        msg = f"the tar has a long name or a pax header of {size} bytes; at most {MAX_EXTENSION_BYTES} are allowed"
        raise _refused(msg)
    file.seek(position)
    text = file.read(size)
    if len(text) < size:
        raise _refused("the tar is damaged: it ends in a long name or a pax header")
    return text


def _read_pax(text: bytes, said: _Extensions, *, is_global: bool) -> None:
    """Take a file's name and size from the records of a pax header, `LENGTH KEY=VALUE` and a line feed each."""
    position = 0
    while position < len(text) and text[position]:
        digits, space, _ = text[position : position + 12].partition(b" ")
        record = text[position : position + int(digits)] if space and digits.isdigit() else b""
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or record[-1:] != b"\n":
            raise _refused("the tar is damaged: a pax header of it cannot be read")
        if key.startswith(b"GNU.sparse.") or key in {b"SCHILY.realsize", b"SUN.holesdata"}:
            raise _sparse("")
        if key in {b"path", b"size"} and is_global:
            msg = f"the tar gives all its files one {key.decode()}"
            raise _refused(msg)
        if key == b"path":
            said.name = _decoded(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:  # noqa: PLR2004 - digits of 64 bits
                raise _refused("the tar is damaged: a size in it is no number")
            said.size = int(value)
        position += len(record)


def _plain_name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    # GNU's own format, whose magic ends in a space, uses the prefix's place for times.
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _decoded(prefix + b"/" + name if prefix else name)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise _refused("the tar has a name that is not UTF-8") from None


def _clean_name(name: str) -> str:
    if not name or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        msg = f"the tar has the name {name[:100]!r}; names of 1 to {MAX_NAME_BYTES} printable bytes are allowed"
        raise _refused(msg)
    return name


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _sparse(name: str) -> InvalidError:
    whose = f" {name!r}" if name else ""
    return InvalidError(f"the tar holds a sparse file{whose}, which is not allowed; pack the folder again without `--sparse`")


def _refused(what: str, remedy: str = _AGAIN) -> InvalidError:
    return InvalidError(f"{what}; {remedy}")
