"""The declarative base, and the column types and contexts that the tables share."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

Timestamp = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Json = Annotated[dict[str, Any], mapped_column(JSONB)]
Bytes = Annotated[int, mapped_column(BigInteger)]
"""A size in bytes."""


class Context(StrEnum):
    """A bounded context: the owner of tables, blobs, an outbox and an inbox."""

    UPLOAD = "upload"
    TUNES = "tunes"
    IMAGES = "images"


class Base(DeclarativeBase):
    """Base of every table. Constraint names follow a convention, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def one_of(column: str, values: Sequence[str]) -> str:
    """Return the SQL of a CHECK that the column holds one of these values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"
