"""JSON of uploaded files, read in time and memory that grow with its length alone.

Python's reader turns a number of thousands of digits into an integer in quadratic time, and holds the interpreter's lock
meanwhile. No file in use has such a number, so a long one is refused before it is converted.
"""

import gc
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from shared.errors import InvalidError

MAX_DIGITS = 20
"""Digits of an integer, its sign included: as many as 64 bits have."""
_MAX_FLOAT_LENGTH = 64
_AGAIN = "save the file again with the program that made it"


def loads(text: bytes, what: str) -> Any:
    """Return the document. Raises InvalidError, which says what is wrong with `what`."""
    try:
        # Not json's own guess of the encoding: JSON in a file is UTF-8.
        with _without_collector():
            return json.loads(text.decode(), parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except InvalidError as error:
        msg = f"{what} holds {error.message}; {_AGAIN}"
        raise InvalidError(msg) from None
    except RecursionError:
        msg = f"{what} nests its lists and objects too deeply; {_AGAIN}"
        raise InvalidError(msg) from None
    except ValueError:
        msg = f"{what} is not JSON; {_AGAIN}"
        raise InvalidError(msg) from None


@contextmanager
def _without_collector() -> Generator[None]:
    """Pause the collector of cycles, which JSON has none of: it would look again and again at millions of new lists."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_object(text: bytes, what: str) -> dict[str, Any]:
    """Return the document, which must be an object. Raises InvalidError."""
    found = loads(text, what)
    if not isinstance(found, dict):
        msg = f"{what} is not a JSON object; {_AGAIN}"
        raise InvalidError(msg)
    return cast("dict[str, Any]", found)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        msg = f"a number of {len(digits)} digits, where at most {MAX_DIGITS} are allowed"
        raise InvalidError(msg)
    return int(digits)


def _float(text: str) -> float:
    if len(text) > _MAX_FLOAT_LENGTH:
        msg = f"a number of {len(text)} characters, where at most {_MAX_FLOAT_LENGTH} are allowed"
        raise InvalidError(msg)
    return float(text)


def _constant(name: str) -> float:
    msg = f"{name}, which is not a number that JSON has"
    raise InvalidError(msg)
