"""A proxy in front of PostgreSQL that cuts a connection inside COMMIT, so that the client cannot know whether it happened."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_COMMIT = b"COMMIT;\x00"
"""The end of the simple query with which asyncpg ends a transaction."""


@dataclass
class Cutter:
    """Cuts every other COMMIT: in turns before the server receives it and before the client receives the answer."""

    url: str
    """The database's address through the proxy."""
    passed: int = 0
    lost: int = 0
    """COMMITs that never reached the server."""
    unanswered: int = 0
    """COMMITs that the server carried out and whose answer never reached the client."""
    is_armed: bool = True

    def judge(self) -> str:
        """Decide about the next COMMIT: `pass`, `lose` or `silence`."""
        seen = self.passed + self.lost + self.unanswered
        if not self.is_armed or seen % 2:
            self.passed += 1
            return "pass"
        if self.lost > self.unanswered:
            self.unanswered += 1
            return "silence"
        self.lost += 1
        return "lose"


@asynccontextmanager
async def cut_commits(database_url: str) -> AsyncIterator[Cutter]:
    """Run the proxy in front of the database with this address."""
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(host, port)
        answers = asyncio.create_task(_pump(server, to_client))
        try:
            while data := await client.read(65536):
                verdict = cutter.judge() if data.endswith(_COMMIT) else "pass"
                if verdict == "lose":
                    break
                if verdict == "silence":
                    answers.cancel()
                    to_server.write(data)
                    await server.read(1)
                    break
                to_server.write(data)
                await to_server.drain()
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for writer in (to_client, to_server):
                writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    here = listener.sockets[0].getsockname()[1]
    login, _, _ = parts.netloc.rpartition("@")
    cutter = Cutter(urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{here}")))
    try:
        yield cutter
    finally:
        listener.close()


async def _pump(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await server.read(65536):
            to_client.write(data)
            await to_client.drain()
        to_client.close()
