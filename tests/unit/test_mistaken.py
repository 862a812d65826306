"""What is uploaded in place of an image or of weights is named, with the remedy."""

import base64
import gzip
import io
import lzma
import pickle
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from shared.errors import InvalidError
from shared.formats import mistaken
from tests.support.cpu_time import bounded_cpu
from tests.support.hostile_files import tar_header


def _image(file_format: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(held, file_format)
    return held.getvalue()


def _zip(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, bytes(100))
    return held.getvalue()


def _form(file: bytes) -> bytes:
    return httpx.Request("PUT", "http://store.test", files={"file": ("cat.png", file)}, data={"a": "b"}).read()


PNG, JPEG = _image("PNG"), _image("JPEG")
WEIGHTS = save({"a": np.ones((64, 64), dtype=np.float16)})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3438167540\n"
TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ANY_WANTED = {
    "lfs": (LFS, "Git LFS pointer of a file of 3438167540 bytes.*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--aa.png\n", "git-annex pointer"),
    "page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head>", "a web page .*download the file itself"),
    "page with a comment": (b"<!-- saved from --><html lang=en>", "a web page"),
    "form": (_form(PNG), "a form .*curl -T"),
    "form without a file": (b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--", "a form"),
    "base64": (base64.b64encode(PNG), "base64 text of a PNG image; decode it"),
    "base64 in lines": (base64.encodebytes(JPEG), "base64 text of a JPEG image"),
    "base64 for addresses": (base64.urlsafe_b64encode(_image("WEBP")), "base64 text of a WebP image"),
    "base64 of weights": (base64.b64encode(WEIGHTS), "base64 text of safetensors"),
    "data url": (b"data:image/png;base64," + base64.b64encode(PNG), "base64 text of a PNG image"),
    "base64 as JSON": (b'"' + base64.b64encode(PNG) + b'"', "base64 text of a PNG image"),
    "base64 as Python prints it": (repr(base64.b64encode(PNG)).encode(), "base64 text of a PNG image"),
    "JSON": (b'{"detail": "Not found"}', "a JSON document"),
    "error of a store": (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "error message AccessDenied of a store"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "a pickle"),
    "old torch": (TORCH_BEFORE_1_6, "a pickle"),
    "torch": (_zip("archive/data.pkl"), "a pickle"),
    "zip": (_zip("a.png"), "a zip archive; unpack it"),
    "gzip": (gzip.compress(PNG), "compressed with gzip; decompress it.*Content-Encoding"),
    "xz": (lzma.compress(PNG), "compressed with xz"),
    "gguf": (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
    "mac": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ", "keeps beside another one for its attributes; upload the file"),
    "png as text": (PNG.decode("utf-8", "replace").encode(), "read as text, which damages them"),
    "jpeg as text": (JPEG.decode("utf-8", "replace").encode(), "read as text"),
    "png as latin-1": (PNG.decode("latin-1").encode(), "read as text"),
}  # fmt: skip


@pytest.mark.parametrize("wanted", ["image", "weights", "checkpoint"])
@pytest.mark.parametrize(("file", "says"), ANY_WANTED.values(), ids=ANY_WANTED)
def test_a_file_of_a_known_kind_is_named_whatever_is_wanted(
    file: bytes, says: str, wanted: mistaken.Wanted, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(file)

    with pytest.raises(InvalidError, match=says):
        mistaken.check(path, wanted)


@pytest.mark.parametrize(
    ("file", "wanted", "says"),
    [
        (PNG, "weights", "the file is not safetensors: it is a PNG image; upload the weights"),
        (_image("WEBP"), "checkpoint", "the file is not a checkpoint: it is a WebP image"),
        (WEIGHTS, "image", "the file is not an image: it is a safetensors file; create the asset with the type"),
        (tar_header(), "weights", "it is a tar archive; unpack it"),
        (tar_header(), "image", "it is a tar archive; upload an image"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "image", "it is a video; upload an image"),
        (b"%PDF-1.7\n", "image", "it is a PDF document; export the image"),
        (_zip("model_index.json"), "checkpoint", "it is a zip archive; unpack it, and pack the model's folder without compression"),
    ],
)  # fmt: skip
def test_a_good_file_of_another_kind_is_named(file: bytes, wanted: mistaken.Wanted, says: str) -> None:
    found = mistaken.name(file[: mistaken.HEAD_BYTES], wanted)

    assert found is not None
    assert found.startswith(says) or says in found


# A header of 640 bytes begins like a pickle: 80 02.
LIKE_A_PICKLE = save({"a": np.ones(2, dtype=np.float16)}, {"a": "x" * (640 - 81)})


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (PNG, "image"),
        (JPEG, "image"),
        # The reader of images says which of them it takes.
        (_image("GIF"), "image"),
        (_image("WEBP"), "image"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "image"),
        (b"<?xml version='1.0'?><!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>", "image"),
        (WEIGHTS, "weights"),
        (WEIGHTS, "checkpoint"),
        (LIKE_A_PICKLE, "weights"),
        (tar_header(), "checkpoint"),
        (b"", "image"),
        (b"not an image", "image"),
        (b"notAnImageButOneLongWordWithoutAnyBlank" * 9, "image"),
        (bytes(range(256)) * 8, "weights"),
    ],
)
def test_what_is_wanted_or_unknown_is_left_to_its_reader(file: bytes, wanted: mistaken.Wanted) -> None:
    assert mistaken.name(file[: mistaken.HEAD_BYTES], wanted) is None


def test_the_example_begins_like_a_pickle() -> None:
    assert LIKE_A_PICKLE[:3] == b"\x80\x02\x00"


@pytest.mark.parametrize(
    "part", [b"<!---->", b"<!-- -->", b"<!--", b"--x\r\n", b"a: b\r\n", b"data:;", b"<?xml ", b" \n", b"<Error>"]
)
def test_hostile_text_is_read_in_linear_time(part: bytes) -> None:
    with bounded_cpu():
        mistaken.name((part * 4096)[: mistaken.HEAD_BYTES], "image")
