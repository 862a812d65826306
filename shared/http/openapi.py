"""Completes a service's OpenAPI description: every error that an operation can answer, with its schema, and the headers.

The errors follow from the operation's form, so a new route is described in full without a declaration.
"""

from typing import Any

from fastapi import FastAPI

Operation = dict[str, Any]

ERROR = "Error"
INVALID = "ValidationErrors"
SCHEMAS: dict[str, Any] = {
    ERROR: {
        "title": ERROR,
        "description": "What is wrong; docs/api.md lists the codes.",
        "type": "object",
        "required": ["detail", "code"],
        "properties": {
            "detail": {
                "type": "string",
                "description": "For people: what is wrong, and what to do.",
            },
            "code": {"type": "string", "description": "For programs; it does not change."},
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
    400: "The body cannot be read (`bad_request`), or the request needs a part of the API that is not served (`not_supported`).",
    401: "The request has no API key, or one that is unknown, expired or revoked.",
    403: "The key lacks the scope.",
    404: "The thing does not exist, or is another account's.",
    408: "The body arrives too slowly.",
    409: "The request contradicts the state of things, or the name is in use.",
    413: "The body is larger than the limit.",
    422: "A field of the request is wrong.",
    429: "A rate or quota of the account is used up.",
    503: "A part that is needed is unavailable.",
}
_RETRY = (429, 503)
_METHODS = ("get", "post", "put", "patch", "delete")
_REQUEST_ID = {"description": "The request's id in the server's log.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait before the next request.", "schema": {"type": "integer", "minimum": 1}}


def complete(app: FastAPI) -> None:
    """Make the application's OpenAPI description name every error that its operations can answer."""
    generate = app.openapi
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        document = generate()
        # FastAPI returns the same document until a route is added.
        if document is not completed:
            _complete_document(document)
            completed = document
        return document

    app.openapi = openapi


def _complete_document(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for method, operation in item.items():
            if method in _METHODS:
                _complete_operation(method, operation)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    # FastAPI's own schemas of a 422 have no code.
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
        found |= {400, 408, 413}
    return found
