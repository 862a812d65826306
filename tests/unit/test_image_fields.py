"""The image fields of a request are read in every form of base64, and anything else is refused at the field."""

import base64

import pytest

from services.inference.images import _decoded
from shared.errors import InvalidError

DATA = bytes(range(256)) + b"\xfb\xff"
PLAIN = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.encodebytes(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{PLAIN}",
        f"data:image/svg+xml;charset=utf-8;base64,{PLAIN}",
        f" DATA:application/octet-stream;base64,\n{PLAIN}",
        f"data:;base64,{PLAIN}",
    ],
)
def test_every_form_of_base64_is_read(text: str) -> None:
    assert _decoded("init_image", text) == DATA


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://example.com/a.png", "an address is not read; send the bytes of a JPEG or PNG, base64-encoded"),
        ("file:///a.png", "an address is not read"),
        ("/home/me/a.png", "not base64: "),
        (repr(base64.b64encode(DATA)), "not base64: "),
        ("a", "not base64: "),
        (f"data:image/png,{PLAIN}", "not base64: "),
    ],
)
def test_anything_else_is_refused_at_the_field(text: str, says: str) -> None:
    with pytest.raises(InvalidError) as refused:
        _decoded("init_image", text)
    assert str(refused.value).startswith(f"init_image: {says}")
    assert refused.value.loc == ("body", "init_image")
