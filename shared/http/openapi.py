"""What a service's API description says besides its routes' own answers: every error with its schema, and the headers.

Which errors an operation can answer follows from its form, so that a new route is described in full without being told to.
"""

from typing import Any

from fastapi import FastAPI

Operation = dict[str, Any]

ERROR = "Error"
INVALID = "ValidationErrors"
SCHEMAS: dict[str, Any] = {
    ERROR: {
        "title": ERROR,
        "description": "What went wrong; docs/api.md lists the codes.",
        "type": "object",
        "required": ["detail", "code"],
        "properties": {
            "detail": {"type": "string", "description": "For people: field, value, limit, and what to do."},
            "code": {"type": "string", "description": "For programs; does not change."},
        },
    },
    INVALID: {
        "title": INVALID,
        "description": "The fields that are wrong.",
        "type": "object",
        "required": ["detail", "code"],
        "properties": {
            "detail": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["loc", "msg", "type"],
                    "properties": {
                        "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                        "msg": {"type": "string"},
                        "type": {"type": "string"},
                    },
                },
            },
            "code": {"type": "string", "const": "invalid"},
        },
    },
}
_DESCRIPTIONS = {
    400: "The body cannot be read (`bad_request`), or a part of the API that is not served here is asked for (`not_supported`).",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key lacks the scope.",
    404: "The thing does not exist, or is another account's.",
    409: "The request contradicts the state of things, or the name is in use.",
    413: "The body is larger than the limit.",
    422: "A field of the request is wrong.",
    429: "A rate or quota of the account is used up.",
    503: "A part that is needed is away for now.",
}
_RETRY = (429, 503)
_METHODS = ("get", "post", "put", "patch", "delete")
_REQUEST_ID = {"description": "Names the request in the server's log.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}


def complete(app: FastAPI) -> None:
    """Let the application's API description name every error that its operations answer."""
    generate = app.openapi
    done: dict[int, dict[str, Any]] = {}

    def openapi() -> dict[str, Any]:
        document = generate()
        # FastAPI keeps its document until a route is added; the same one is completed once.
        if id(document) not in done:
            _complete_document(document)
            done.clear()
            done[id(document)] = document
        return document

    app.openapi = openapi


def _complete_document(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for method, operation in item.items():
            if method in _METHODS:
                _complete_operation(method, operation)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    # FastAPI's own form of a 422 lacks the code.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= SCHEMAS


def _complete_operation(method: str, operation: Operation) -> None:
    answers = operation["responses"]
    for status in sorted(_errors(method, operation)):
        answer = answers.setdefault(str(status), {})
        answer.setdefault("description", _DESCRIPTIONS[status])
    for status, answer in answers.items():
        answer.setdefault("headers", {})["X-User-Request-ID"] = _REQUEST_ID
        if int(status) in _RETRY:
            answer["headers"]["Retry-After"] = _RETRY_AFTER
        if int(status) >= 400 and operation.get("security"):  # noqa: PLR2004 - where errors begin
            schema = INVALID if status == "422" else ERROR
            answer["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    operation["responses"] = dict(sorted(answers.items()))


def _errors(method: str, operation: Operation) -> set[int]:
    if not operation.get("security"):
        return set()
    found = {401, 403, 422, 429, 503}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        found.add(404)
    if method != "get":
        found.add(409)
    if "requestBody" in operation:
        found |= {400, 413}
    return found
