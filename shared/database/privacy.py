"""Keeps values out of the texts of database errors: logs and tracebacks must not have prompts, captions or names.

SQLAlchemy's `hide_parameters` hides its own list of parameters only. PostgreSQL repeats values in the DETAIL of an error, such as
`Failing row contains (...)`, and asyncpg in the message about an argument that it cannot encode.
"""

import asyncpg
from sqlalchemy.engine import ExceptionContext

_CLASS_OF_DATA = "22"
"""The SQLSTATE class of values that do not fit. Its messages quote the value."""


def hide_values(context: ExceptionContext) -> None:
    """Take the values out of an error of the driver and out of those that wrap it; for SQLAlchemy's `handle_error`."""
    adapted = context.original_exception
    driver = adapted.__cause__
    if not isinstance(driver, asyncpg.PostgresError | asyncpg.InterfaceError):
        return
    if isinstance(driver, asyncpg.PostgresError):
        driver.detail = None  # pyright: ignore[reportAttributeAccessIssue] - asyncpg sets it from the server's message
        state = str(getattr(driver, "sqlstate", None) or "")
        if state.startswith(_CLASS_OF_DATA):
            driver.args = (f"a value does not fit (SQLSTATE {state})",)
    elif "query argument" in str(driver):
        driver.args = ("a value does not fit",)
    # asyncpg's error about an argument is caused by one that quotes it.
    driver.__cause__ = driver.__context__ = None
    text = f"{type(driver)}: {driver}"
    adapted.args = (text,)
    if context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.args = (f"({type(adapted).__module__}.{type(adapted).__name__}) {text}",)
