"""Explains a request whose body cannot be read, or has a value that cannot be stored, at the field that is wrong."""

import base64
import re
from collections.abc import Iterable, Mapping
from json import JSONDecodeError
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from shared.errors import InvalidError

Loc = tuple[str | int, ...]
_SEND_JSON = "send JSON with Content-Type: application/json"
_BIGGEST = 2**63 - 1
_NAMES: dict[type, str] = {
    str: "a string",
    list: "an array",
    bytes: "bytes",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}

_NO_OBJECT = {"model_type", "model_attributes_type", "dict_type", "dataclass_type"}
"""Pydantic's types of errors about a value that is no object."""


def unreadable(request: Request, error: RequestValidationError | HTTPException) -> InvalidError | None:
    """Return why no field of the body could be read; None when the error is another one.

    FastAPI says only that it has no object, or that JSON is invalid, which hides a header that is wrong.
    """
    if isinstance(error, HTTPException):
        return _by_headers(request) or _by_cause(error.__cause__)
    for fault in error.errors():
        kind, loc = str(fault["type"]), tuple(fault["loc"])
        if kind == "missing" and loc == ("body",):
            return InvalidError(f"the body is missing; {_SEND_JSON}", loc=loc, kind=kind)
        if kind == "json_invalid":
            sent: object = getattr(error, "body", None)
            told = _by_content(sent.encode(errors="replace") if isinstance(sent, str) else b"")
            msg = told or f"the body is not JSON: {fault['ctx']['error']} at character {loc[-1]}; {_SEND_JSON}"
            return _by_headers(request) or InvalidError(msg, loc=loc, kind=kind)
        # A check of the whole object has the same place, and its own words.
        if loc == ("body",) and kind in _NO_OBJECT:
            value: object = fault.get("input")
            msg = f"the body is {_NAMES.get(type(value), 'null')} where a JSON object is expected"
            told = _by_content(value.encode(errors="replace")) if isinstance(value, str) else None
            if told:
                msg = told
            elif isinstance(value, str):
                msg += "; if the object was encoded as JSON twice, encode it once"
            return _by_headers(request) or InvalidError(msg, loc=loc, kind=kind)
    return None


def _by_headers(request: Request) -> InvalidError | None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        msg = f"Content-Encoding: a body that is compressed with {encoding[:50]!r} is not read; send it uncompressed"
        return InvalidError(msg, loc=("header", "Content-Encoding"))
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        return None
    problem = f"{given[:100]!r} is not JSON's" if given else "the header is missing"
    return InvalidError(f"Content-Type: {problem}; {_SEND_JSON}", loc=("header", "Content-Type"))


_FORM = re.compile(rb"--[^\r\n]{1,200}\r?\n(?:[\w-]+:[^\r\n]*\r?\n){0,8}?Content-Disposition:\s*form-data", re.IGNORECASE)
_PAIRS = re.compile(rb"[\w.\[\]-]{1,100}=[^\s={}\"&]*(?:&[\w.\[\]-]{1,100}=[^\s={}\"&]*)*(?:&[\w.\[\]-]*)?")
_BASE64 = re.compile(rb"[\"']?([A-Za-z0-9+/_\r\n-]{8,}={0,2})")
_OBJECT = re.compile(rb"\s*\{\s*[\"}]")
_LOOKED_AT = 4096
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x78\x9c": "deflate"}
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_AS_FIELD = "send it base64-encoded as a field of a JSON object, such as init_image"


def _by_content(body: bytes) -> str | None:
    """Return what a body is that is sent as JSON and is none, and what to do; None when its kind is unknown."""
    text = body[:_LOOKED_AT].lstrip()
    if _FORM.match(text):
        return f"the body is a form (multipart/form-data); {_SEND_JSON}"
    if text.startswith(_IMAGES):
        return f"the body is an image; {_AS_FIELD}"
    if kind := next((kind for start, kind in _COMPRESSED.items() if body.startswith(start)), None):
        return f"the body is compressed with {kind}; send it uncompressed"
    if found := _BASE64.match(text):
        letters = found[1].translate(None, b"\r\n=").replace(b"-", b"+").replace(b"_", b"/")
        held = base64.b64decode(letters[: len(letters) // 4 * 4])
        if held.startswith(_IMAGES):
            return f"the body is an image in base64; {_AS_FIELD}"
        if _OBJECT.match(held):
            return "the body is JSON in base64; send the JSON itself"
    return f"the body is a form (urlencoded); {_SEND_JSON}" if _PAIRS.fullmatch(text.rstrip()) else None


def _by_cause(cause: BaseException | None) -> InvalidError | None:
    if isinstance(cause, UnicodeDecodeError):
        told = _by_content(cause.object)
        return InvalidError(told or f"the body is not {cause.encoding.upper()} at byte {cause.start}; send JSON in UTF-8")
    if isinstance(cause, RecursionError):
        return InvalidError("the body nests its lists and objects too deeply; send a flatter one")
    if isinstance(cause, ValueError) and not isinstance(cause, JSONDecodeError):
        return InvalidError("the body has a number of too many digits; send a smaller one")
    return None


PARSED = "tunesmith.parsed"
"""Where a route leaves the parsed body for an error that comes later."""


def unstorable(request: Request) -> InvalidError | None:
    """Return which value of a request cannot be stored; None when the request does not show it."""
    # What was parsed already, by the route or from this object: to read the body once more would wait for ever.
    body: object = request.scope.get(PARSED) or getattr(request, "_json", None)
    parts: dict[str, Mapping[str, Any]] = {
        "path": request.path_params,
        "query": dict(request.query_params),
    }
    for loc, value in (*_leaves(body, ("body",)), *(leaf for part, held in parts.items() for leaf in _leaves(held, (part,)))):
        if isinstance(value, str) and "\0" in value:
            problem = "the text has a NUL character; leave it out"
        elif isinstance(value, str) and not _is_text(value):
            problem = "the text has half of a surrogate pair; send whole characters"
        elif isinstance(value, int) and abs(value) > _BIGGEST:
            problem = f"the number is too large; send one up to {_BIGGEST}"
        else:
            continue
        return InvalidError(f"{loc[-1]}: {problem}", loc=loc)
    return None


def _leaves(value: object, loc: Loc) -> Iterable[tuple[Loc, object]]:
    """Yield each value below `value` that is neither a list nor an object, and the texts of objects' keys."""
    waiting: list[tuple[Loc, object]] = [(loc, value)]
    while waiting:
        at, found = waiting.pop()
        if isinstance(found, Mapping):
            items = cast("Mapping[str, object]", found).items()
            for key, item in items:
                yield at, key
                waiting.append(((*at, key), item))
        elif isinstance(found, list):
            waiting += [((*at, position), item) for position, item in enumerate(cast("list[object]", found))]
        else:
            yield at, found


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
