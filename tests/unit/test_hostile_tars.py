"""Tars that are damaged or made to do harm are refused with what is wrong; honest ones are read as `tarfile` reads them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidError
from shared.formats import checkpoint, tar
from tests.support.cpu_time import bounded_cpu
from tests.support.hostile_files import (
    BLOCK,
    CONFIGS,
    binary,
    checkpoint_tar,
    octal,
    padded,
    pax,
    tar_file,
    tar_header,
)

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = f"unet/{'deep/' * 30}weights.safetensors"


def _read(content: bytes) -> list[tar.Member]:
    return list(tar.members(io.BytesIO(content)))


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_honest_tars_are_read_as_python_reads_them(tar_format: int) -> None:
    files = {"unet/diffusion_pytorch_model.safetensors": bytes(1300), "tokenizer/merges.txt": "é".encode(), "vae/empty.txt": b""}
    if tar_format != tarfile.USTAR_FORMAT:
        files |= {LONG: b"long", "text_encoder/größe.txt": b"x"}
    content = checkpoint_tar(files, tar_format=tar_format, folders=["unet", "vae/"])

    found = _read(content)

    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        wanted = [(member.name, member.isdir(), member.offset_data, member.size) for member in archive]
    assert [(member.name, member.is_folder, member.start, member.size) for member in found] == wanted


def test_a_tar_of_the_folder_itself_is_read_without_the_dot() -> None:
    content = tar_file(tar_header("./", kind=b"5"), tar_header("./unet/", kind=b"5"), tar_header("./unet/config.json"))

    assert [member.name for member in _read(content)] == [".", "unet", "unet/config.json"]


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.txt", "GNU.sparse.realsize": str(2**40)}
MANY = b"".join(tar_header(f"f{number}", kind=b"5") for number in range(300))
HOSTILE = {
    "a member of 2^50 bytes": (tar_file(tar_header(size=binary(2**50))), "has 1125899906842624 bytes by its header"),
    "2^50 bytes by pax": (tar_file(pax({"size": str(2**50)}), tar_header()), "has 1125899906842624 bytes by its header"),
    "a size of 5000 digits": (tar_file(pax({"size": "9" * 5000}), tar_header()), "a size in it is no number"),
    "a size below zero": (tar_file(tar_header(size=binary(-1))), "has -1 bytes by its header"),
    "a size that is no number": (tar_file(tar_header(size=b"9z9z9z9z9z9z")), "a size in it is no number"),
    "a file named as the folder": (tar_file(tar_header(".")), "a file whose name is '.'"),
    "a file whose name ends in a slash": (tar_file(tar_header("./")), "a file whose name is './'"),
    "one byte too few": (tar_header(size=octal(600)) + bytes(599), "has 600 bytes by its header"),
    "a long name of 64 MiB": (tar_header("@", octal(64 << 20), b"L") + bytes(64 << 20), "at most 65536 are allowed"),
    "a long name that is only announced": (tar_header("@", binary(2**50), b"L"), "at most 65536 are allowed"),
    "a pax header of a mebibyte": (pax({"comment": "x" * 2**20}), "at most 65536 are allowed"),
    "a long name cut off": (tar_header("@", octal(600), b"L") + bytes(512), "ends in a long name"),
    "a chain of long names": (tar_file(*[tar_header("@", octal(1), b"L") + padded(b"x")] * 5000), "more than 4 long names"),
    "a chain of pax headers": (tar_file(*[pax({"comment": "x"}, b"g")] * 5000), "more than 4 long names"),
    "a long name for no file": (tar_file(tar_header("@", octal(1), b"L") + padded(b"x")), "belongs to no file"),
    "an old sparse member": (tar_file(tar_header(size=octal(0), kind=b"S")), "sparse file 'unet/config.json'"),
    "a sparse member by pax": (tar_file(pax(SPARSE), tar_header("GNUSparseFile.0/a.txt")), "sparse file"),
    "a sparse member by an old pax": (tar_file(pax({"GNU.sparse.map": "0,1"}), tar_header()), "sparse file"),
    "a sparse member of star": (tar_file(pax({"SCHILY.realsize": "9"}), tar_header()), "sparse file"),
    "one name for all": (tar_file(pax({"path": "a.txt"}, b"g"), tar_header()), "gives all its files one path"),
    "a pax record of no length": (tar_header("p", octal(4), b"x") + padded(b"0 a=b\n"), "a pax header of it cannot be read"),
    "a pax record too long": (tar_header("p", octal(9), b"x") + padded(b"99999 a=b"), "a pax header of it cannot be read"),
    "300 folders": (tar_file(MANY), "more than 200 files and folders"),
    "a folder with contents": (tar_file(tar_header(size=octal(9), kind=b"5"), padded(b"123456789")), "has 9 bytes by its header"),
    "a symbolic link": (tar_file(tar_header(kind=b"2")), "a symbolic link; only files and folders .* `tar -chf model.tar"),
    "a hard link": (tar_file(tar_header(kind=b"1")), "a hard link; only files and folders .* `tar --hard-dereference"),
    "a device": (tar_file(tar_header(kind=b"3")), "a device; only files and folders"),
    "an unknown kind": (tar_file(tar_header(kind=b"M")), "something else; only files and folders"),
    "a wrong checksum": (tar_file(tar_header(), tar_header().replace(b"0000644", b"0000645")), "whose checksum is wrong"),
    "half a header": (tar_header() + tar_header()[:100], "a header that is truncated"),
    "a name with a NUL": (tar_file(pax({"path": "a\0b.txt"}), tar_header()), "printable bytes are allowed"),
    "a name with a line feed": (tar_file(tar_header("a\nb.txt")), "printable bytes are allowed"),
    "a name of 60 KiB": (tar_file(pax({"path": "a" * 60_000}), tar_header()), "names of 1 to 255"),
    "no name": (tar_file(tar_header("")), "names of 1 to 255"),
    "a name that is no text": (tar_file(tar_header("x").replace(b"x\0", b"\xff\0", 1)), "checksum is wrong"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_with_what_is_wrong_and_what_to_do(name: str) -> None:
    content, reason = HOSTILE[name]

    with bounded_cpu(), pytest.raises(InvalidError, match=reason) as refused:
        _read(content)

    assert "pack the folder again" in refused.value.message


BAD_CHECKPOINTS = {
    "outside": ({"../x.json": b"{}"}, "lies outside of its folder"),
    "absolute": ({"/etc/x.json": b"{}"}, "lies outside of its folder"),
    "code": ({"unet/x.py": b""}, "only .json, .safetensors, .txt files are allowed"),
    "a file as a folder": ({"unet/config.json/x.json": b"{}"}, "twice, or as a file and a folder"),
    "long JSON": ({"unet/a.json": b" " * (8 * 2**20 + 1)}, "at most 8388608"),
    "much text": ({f"unet/{n}.txt": bytes(2**23) for n in range(5)}, "all of them 33554432"),
    "a number of a million digits": ({"unet/a.json": b'{"a": ' + b"9" * 10**6 + b"}"}, "a number of 1000000 digits"),
    "many long numbers": ({"unet/a.json": b"[" + b"9" * 4000 + (b"," + b"9" * 4000) * 400 + b"]"}, "a number of 4000 digits"),
    "a long fraction": ({"unet/a.json": b"[0." + b"9" * 10**6 + b"]"}, "a number of 1000002 characters"),
    "an exponent": ({"unet/a.json": b"[1e" + b"9" * 10**6 + b"]"}, "a number of 1000002 characters"),
    "infinity": ({"unet/a.json": b"[Infinity]"}, "Infinity, which is not a number"),
    "deep JSON": ({"unet/a.json": b"[" * 10**6}, "too deeply"),
    "no JSON": ({"unet/a.json": b"\xff\xfe["}, "unet/a.json is not JSON"),
    "levels without an end": (
        {"vae/config.json": json.dumps({"block_out_channels": [8] * 100_000}).encode()},
        "block_out_channels .at most 8",
    ),
    "a huge width": ({"text_encoder/config.json": b'{"hidden_size": 99999999999999999999}'}, "hidden_size .at most 65536"),
    "a width that is true": ({"text_encoder/config.json": b'{"hidden_size": true}'}, "hidden_size"),
    "a pipeline that is a list": ({"model_index.json": b'{"_class_name": [[1]]}'}, "_class_name"),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    files, reason = BAD_CHECKPOINTS[name]
    path = tmp_path / "checkpoint"
    path.write_bytes(checkpoint_tar(files))

    with pytest.raises(InvalidError, match=reason):
        checkpoint.read_file(path)


def test_a_duplicate_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(tar_file(tar_header("a.json"), tar_header("./a.json")))

    with pytest.raises(InvalidError, match="twice"):
        checkpoint.unpack(path, tmp_path / "unpacked")

    assert list(tmp_path.iterdir()) == [path]


NAMES = st.sampled_from(
    ["a.json", "unet/config.json", "../x.txt", "/x.txt", "d/", ".", "é.txt", "x.py", "\x7f.txt", "a" * 99, ""]
)
NUMBERS = st.sampled_from([0, 1, 511, 512, 513, 65536, 65537, 2**33 - 1, 2**50, 2**63 - 1]) | st.integers(0, 5000)
SIZES = st.one_of(
    NUMBERS.filter(lambda n: n < 8**11).map(octal),
    (NUMBERS | st.integers(-(2**40), -1)).map(binary),
    st.binary(min_size=12, max_size=12),
)
KINDS = st.sampled_from([*(bytes([kind]) for kind in b"\x0001234567LKxXgSDMV")])
RECORDS = st.dictionaries(
    st.sampled_from(["path", "size", "linkpath", "mtime", "comment", "GNU.sparse.map", "GNU.sparse.major", "SCHILY.xattr.a"]),
    st.sampled_from(["", "a.json", "b/c.txt", "12", "-1", "9" * 30, "1125899906842624", "../x", "x" * 300]),
    max_size=3,
)


def _any_member(name: str, size: bytes, kind: bytes, magic: bytes, data: bytes) -> bytes:
    return tar_header(name, size, kind, magic=magic) + padded(data)


def _honest_member(name: str, data: bytes) -> bytes:
    return tar_header(name, octal(len(data))) + padded(data)


def _long_name(name: str) -> bytes:
    return tar_header("@", octal(len(name.encode())), b"L") + padded(name.encode())


def _whole(entries: list[bytes], length: int, honest: bytes) -> bytes:
    return (honest + tar_file(*entries))[: length or None]


ENTRIES = st.one_of(
    st.builds(
        _any_member,
        NAMES,
        SIZES,
        KINDS,
        st.sampled_from([b"ustar\x0000", b"ustar  \0", bytes(8)]),
        st.binary(max_size=600),
    ),
    st.builds(pax, RECORDS, st.sampled_from([b"x", b"g"])),
    st.builds(_honest_member, NAMES, st.binary(max_size=600)),
    st.builds(_long_name, NAMES),
    st.just(bytes(BLOCK)),
)
CHECKPOINTS = st.builds(
    _whole,
    st.lists(ENTRIES, max_size=8),
    st.just(0) | st.integers(1, 4000),
    st.sampled_from([b"", checkpoint_tar(has_end=False)]),
)


@pytest.mark.parametrize("examples", [150, pytest.param(20_000, marks=pytest.mark.long)])
def test_any_tar_is_read_within_its_bounds_or_refused(examples: int, tmp_path: Path) -> None:
    path, folder = tmp_path / "checkpoint", tmp_path / "unpacked"

    @settings(max_examples=examples, deadline=None, database=None)
    @given(CHECKPOINTS)
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with bounded_cpu():
            try:
                found = _read(content)
            except InvalidError:
                found = []
            assert len(found) <= tar.MAX_MEMBERS
            assert all(0 <= member.size <= len(content) - member.start for member in found)
            _unpacks_or_is_refused(path, folder, len(content))

    check()


def _unpacks_or_is_refused(path: Path, folder: Path, size_bytes: int) -> None:
    try:
        checkpoint.read_file(path)
    except InvalidError:
        pass
    else:
        checkpoint.lay_out(path)
    try:
        checkpoint.unpack(path, folder)
    except InvalidError:
        assert not folder.exists()
        return
    files = [file for file in folder.rglob("*") if file.is_file()]
    # A schedule and CLIP's tokenizers are added.
    assert sum(file.stat().st_size for file in files) <= size_bytes + (4 << 20)
    assert all(file.suffix in {".json", ".txt", ".safetensors"} for file in files)
    _remove(folder)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([2**64, -1, 0, 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("examples", [150, pytest.param(20_000, marks=pytest.mark.long)])
def test_any_configuration_is_described_or_refused(examples: int) -> None:
    keys = [(file, key) for file, document in CONFIGS.items() for key in document] + [("vae/config.json", "latent_channels")]

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.dictionaries(st.sampled_from(keys), JSON_VALUES, min_size=1, max_size=3))
    def check(changes: dict[tuple[str, str], Any]) -> None:
        documents = {name: dict(document) for name, document in CONFIGS.items()}
        for (file, key), value in changes.items():
            documents[file][key] = value
        try:
            info = checkpoint.describe({name: json.dumps(document).encode() for name, document in documents.items()})
        except InvalidError:
            return
        assert 0 < info.native_size_px <= 16_384
        assert len(info.model_dump_json()) < 1000

    check()
