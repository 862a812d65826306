"""A file host on loopback for tests of imports: it can redirect, stall and ask for a token, and keeps every request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

UNSAID = -1
"""A length that leaves the Content-Length header out."""


@dataclass
class Reply:
    """An answer of the host; one that stalls never sends more than its beginning."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """The value of Content-Length; without it, the length of the body."""
    stalls: bool = False


Handler = Callable[[str, dict[str, str]], Reply]


@dataclass
class FileHost:
    """A running host, with the path and the lower-case headers of each request that reached it."""

    port: int
    asked: list[tuple[str, dict[str, str]]]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@asynccontextmanager
async def file_host(answer: Handler) -> AsyncIterator[FileHost]:
    """Run a host that answers each request with what `answer` returns for its path and headers."""
    asked: list[tuple[str, dict[str, str]]] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        path = lines[0].split(" ")[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        asked.append((path, headers))
        reply = answer(path, headers)
        length = len(reply.body) if reply.length is None else reply.length
        said = {} if length == UNSAID else {"Content-Length": str(length)}
        head = said | {"Connection": "close"} | reply.headers
        writer.write(f"HTTP/1.1 {reply.status} x\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n" + reply.body)
        await writer.drain()
        if reply.stalls:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield FileHost(server.sockets[0].getsockname()[1], asked)
    finally:
        over.set()
        server.close()
