"""What a failed statement means is told by its SQLSTATE."""

import pytest
from sqlalchemy.exc import DBAPIError

from shared.failures import is_unavailable, is_unmigrated, is_value


class _RefusalError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def _failed(sqlstate: str) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, _RefusalError(sqlstate))


@pytest.mark.parametrize("sqlstate", ["57P01", "57P02", "57P03", "53300", "08006"])
def test_a_server_that_goes_down_comes_up_or_is_full_is_away(sqlstate: str) -> None:
    assert is_unavailable(_failed(sqlstate))


@pytest.mark.parametrize("sqlstate", ["57014", "23505", "22021", "42P01", ""])
def test_what_is_wrong_with_the_statement_is_no_outage(sqlstate: str) -> None:
    assert not is_unavailable(_failed(sqlstate))


def test_the_rest_is_told_apart() -> None:
    assert (is_value(_failed("22021")), is_value(_failed("42P01"))) == (True, False)
    assert (is_unmigrated(_failed("42P01")), is_unmigrated(_failed("22021"))) == (True, False)
