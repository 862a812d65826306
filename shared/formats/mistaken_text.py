"""Names the kinds of text that are uploaded in place of a file: pointers, web pages, forms, base64 and error messages."""

import base64
import binascii
import re
from collections.abc import Callable

_LFS = re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/")
_LFS_SIZE = re.compile(rb"^size (\d{1,20})\r?$", re.MULTILINE)
_ANNEX = re.compile(rb"(?:\.\./|\./)*(?:\.git)?/annex/objects/")
_FORM = re.compile(rb"--[^\r\n]{1,200}\r?\n(?:[\w-]+:[^\r\n]*\r?\n){0,8}?Content-Disposition:\s*form-data", re.IGNORECASE)
# Atomic groups: comments could otherwise be divided in exponentially many ways.
_HTML = re.compile(
    rb"(?:<\?xml[^>]*>\s*)?(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body|script|meta)\b", re.IGNORECASE | re.DOTALL
)
_SVG = re.compile(rb"(?:<\?xml[^>]*>\s*)?(?:(?><!--.*?-->|<!doctype[^>]*>)\s*+)*+<svg\b", re.IGNORECASE | re.DOTALL)
_STORE_ERROR = re.compile(rb"<Error>.{0,500}?<Code>(\w{1,60})</Code>", re.DOTALL)
_BASE64 = re.compile(rb"(?:data:[\w/+.-]{0,100}(?:;[\w=.-]{1,60})*;base64,)?([A-Za-z0-9+/_\r\n-]{16,}={0,2})", re.IGNORECASE)
_QUOTES = re.compile(rb"b?[\"']")
_SEND_BYTES = "send the file's bytes alone"


def text_kind(head: bytes, binary_kind: Callable[[bytes], str | None]) -> tuple[str, str] | None:
    """Return what text that begins so is, and what to do about it; None when it is of no known kind.

    `binary_kind` names the kind of what base64 stands for.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _LFS.match(text):
        size = _LFS_SIZE.search(text)
        of = f" of a file of {size[1].decode()} bytes" if size else ""
        return f"a Git LFS pointer{of}, not that file", "run `git lfs pull` in its folder, or download the file itself"
    if _ANNEX.match(text):
        return "a git-annex pointer, not the file", "run `git annex get` for it, and upload the file"
    if _FORM.match(text):
        return "a form (multipart/form-data) with the file in it", f"{_SEND_BYTES}, as `curl -T FILE URL` does and -F does not"
    if _HTML.match(text):
        return (
            "a web page (HTML), as a server sends it in place of a file that needs a login or has moved",
            "download the file itself and upload that",
        )
    if _SVG.match(text):
        # The reader of images says which formats it takes.
        return None
    return _store_error(text) or _base64(text, binary_kind) or _json(text)


def _store_error(text: bytes) -> tuple[str, str] | None:
    if not text.startswith((b"<?xml", b"<Error>")):
        return None
    code = _STORE_ERROR.search(text)
    if code:
        return f"the error message {code[1].decode()} of a store, not a file from it", "download the file again, and upload that"
    return "an XML document", "upload the file that it describes"


def _base64(text: bytes, binary_kind: Callable[[bytes], str | None]) -> tuple[str, str] | None:
    quoted = _QUOTES.match(text)
    found = _BASE64.match(text, quoted.end() if quoted else 0)
    if found is None:
        return None
    letters = b"".join(found[1].rstrip(b"=").split()).replace(b"-", b"+").replace(b"_", b"/")
    try:
        kind = binary_kind(base64.b64decode(letters[: len(letters) // 4 * 4]))
    except binascii.Error:
        return None
    return (f"base64 text of {kind}", f"decode it, and {_SEND_BYTES}") if kind else None


def _json(text: bytes) -> tuple[str, str] | None:
    if re.match(rb"\{\s*(?:\"|\})|\[\s*[\"{\[]", text):
        return "a JSON document", f"{_SEND_BYTES}; if the document is an error message, do what it says"
    return None
