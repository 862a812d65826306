"""Datasets: the images, captions and settings of a tune before it is started. The scheduler writes them."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, CreatedAt


class Dataset(Base):
    """Images with captions, and the settings of the tune that is prepared with them."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(Text)
    trigger_word: Mapped[str] = mapped_column(Text)
    subject_class: Mapped[str] = mapped_column(Text)
    files: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """In their order, `file_id`, `file_name` and `caption` of each image. An image may have been deleted since."""
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Whatever the client keeps beside them; the server does not read it."""
    version: Mapped[int] = mapped_column(default=1)
    """It grows by one with each change. A change names the version that it was made on."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("version > 0", "version"),
        Index("ix_datasets_changed", "account_id", "updated_at"),
    )
