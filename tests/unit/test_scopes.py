"""A scope allows its own part of the API, to read, to write, or both."""

import pytest

from shared.accounts import scopes
from shared.errors import InvalidError


@pytest.mark.parametrize(
    ("granted", "may_read", "may_write"),
    [
        (["tunes"], True, True),
        (["tunes:read"], True, False),
        (["tunes:write"], False, True),
        (["tunes:read", "tunes:write"], True, True),
        (["assets", "images", "admin"], False, False),
        ([], False, False),
    ],
)
def test_a_scope_allows_what_it_names(granted: list[str], may_read: bool, may_write: bool) -> None:
    assert (scopes.allow(granted, "tunes", "read"), scopes.allow(granted, "tunes", "write")) == (may_read, may_write)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_methods_that_only_read_need_read_access(method: str) -> None:
    assert scopes.access_of(method) == "read"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
def test_every_other_method_needs_write_access(method: str) -> None:
    assert scopes.access_of(method) == "write"


def test_scopes_are_returned_without_repeats_in_one_order() -> None:
    assert scopes.check(["tunes:read", "assets", "tunes:read"]) == ["assets", "tunes:read"]


@pytest.mark.parametrize("wrong", [[], ["everything"], ["tunes:delete"], ["tunes", "Tunes"]])
def test_a_scope_that_does_not_exist_is_refused(wrong: list[str]) -> None:
    with pytest.raises(InvalidError, match="choose from assets"):
        scopes.check(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["everything"], "scopes: 'everything' does not exist; choose from"),
        (["tunes:delete", "everything"], "scopes: 'everything', 'tunes:delete' do not exist; choose from"),
        ([], "scopes: none is given; choose from"),
    ],
)
def test_the_scopes_that_do_not_exist_are_named(wrong: list[str], says: str) -> None:
    with pytest.raises(InvalidError, match=f"^{says}"):
        scopes.check(wrong)
