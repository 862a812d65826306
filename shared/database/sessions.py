"""The database: one engine a process, one transaction a request or message, committed at the edge."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from shared.settings import ServiceSettings


class Database:
    """Hands out transactions on PostgreSQL.

    Nothing but `begin` commits: a service or repository function takes the session and leaves the commit to the edge
    (a route, a consumed message, a background task).
    """

    def __init__(self, url: str, *, pool_size: int = 10, application_name: str = "tunesmith") -> None:
        self.engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            # A connection that died with the server is found before a transaction is lost on it.
            pool_pre_ping=True,
            connect_args={
                "timeout": 5,
                "command_timeout": 30,
                "server_settings": {"application_name": application_name, "idle_in_transaction_session_timeout": "30000"},
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def from_settings(cls, settings: ServiceSettings, *, application_name: str) -> "Database":
        """Build the process's database from its settings."""
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size,
            application_name=application_name,
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction (READ COMMITTED); commits when the block ends, rolls back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
