"""What each SDK raises for which answer: the table that its users' `except` and `catch` clauses were written against."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver, SdkError

_GENERATED = {400: "BadRequestException", 401: "UnauthorizedException", 403: "ForbiddenException", 404: "NotFoundException"}


@contextmanager
def refused(by: Driver | Curl, status: int, *, images: bool = False) -> Iterator[None]:
    """Expect the SDK to raise its own exception for an answer of this status; `images` where it was asked for images."""
    with pytest.raises(SdkError) as caught:
        yield
    error = caught.value
    if isinstance(by, Curl):
        assert error.status == status, error
        return
    name = error.kind.rpartition(".")[2]
    match by.sdk.package:
        case "octoai-sdk" if not images:
            assert (name, error.status) == (_GENERATED.get(status, "ApiException"), status), error
        case "octoai-sdk" | "@octoai/client":
            assert name == "OctoAIClientError", error
            assert f"{status}" in error.text
            assert "request_id: req_" in error.text
        case "octoai" | "@octoai/sdk":
            general = {"octoai": "ApiError", "@octoai/sdk": "OctoAIError"}[by.sdk.package]
            assert (name, error.status) == ("UnprocessableEntityError" if status == 422 else general, status), error
        case other:
            pytest.fail(f"{other}: nobody has said what it raises")
