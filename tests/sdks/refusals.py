"""What each SDK raises for which answer: what its users' `except` and `catch` clauses were written for."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver, SdkError

_PREFIX = {False: "Error", True: "Server error"}
_GENERATED = {400: "BadRequestException", 401: "UnauthorizedException", 403: "ForbiddenException", 404: "NotFoundException"}


@contextmanager
def refused(by: Driver | Curl, status: int, *, images: bool = False, inferring: bool = False, says: str = "") -> Iterator[None]:
    """Expect the SDK to raise its own exception for an answer of this status.

    `images` says that images were asked for, and `inferring` that this was done by the methods that take an address. `says` is a
    part of the answer's text that the exception's text must contain.
    """
    with pytest.raises(SdkError) as caught:
        yield
    error = caught.value
    if isinstance(by, Curl):
        assert error.status == status, error
        return
    name = error.kind.rpartition(".")[2]
    if by.sdk.package == "octoai" and inferring:
        # These methods raise httpx's own exception, whose text lacks the answer.
        assert (error.kind, f"{status} " in error.text) == ("httpx.HTTPStatusError", True), error
        return
    assert says in error.text
    match by.sdk.package:
        case "octoai-sdk" if not (images or inferring):
            general = "ServiceException" if status >= 500 else "ApiException"
            assert (name, error.status) == (_GENERATED.get(status, general), status), error
            if status in {429, 503}:
                assert "retry-after" in error.text.lower()
        case "octoai-sdk" | "@octoai/client":
            assert name == ("OctoAIServerError" if status >= 500 else "OctoAIClientError"), error
            assert error.text.startswith("Rate limit reached error" if status == 429 else _PREFIX[status >= 500]), error
            assert f"{status}" in error.text
            assert "request_id: req_" in error.text
        case "octoai" | "@octoai/sdk":
            general = {"octoai": "ApiError", "@octoai/sdk": "OctoAIError"}[by.sdk.package]
            assert (name, error.status) == ("UnprocessableEntityError" if status == 422 else general, status), error
        case other:
            pytest.fail(f"this table does not know what {other} raises")
