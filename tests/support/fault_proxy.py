"""A TCP proxy before a dependency that can be slow, silent, cut or down, switchable while clients are connected."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit, urlunsplit

LOOPBACK = "127.0.0.1"
_CHUNK = 65536


class FaultProxy:
    """Passes connections on to a port of this machine.

    With `kafka`, the broker's own address in its answers becomes the proxy's: a client would otherwise leave the proxy after its
    first request.
    """

    def __init__(self, port: int, *, kafka: bool = False) -> None:
        self.port = 0
        """Where it listens; the same port after each `down`."""
        self.accepted = 0
        """How many connections it has accepted."""
        self._upstream = port
        self._kafka = kafka
        self._delay_s = 0.0
        self._gate = asyncio.Event()
        self._gate.set()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    def url(self, direct: str) -> str:
        """Return an address of the dependency with the proxy's host and port."""
        parts = urlsplit(direct)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}{LOOPBACK}:{self.port}"))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def slow(self, delay_s: float) -> None:
        """Hold each piece of data back for a time, in both directions."""
        self._delay_s = delay_s

    def stall(self) -> None:
        """Keep connections open, and accept new ones, without a byte in either direction; `heal` delivers what was held back."""
        self._gate.clear()

    def strand(self) -> None:
        """Leave the connections that are open silent for ever, as a firewall that forgot them does; new ones work."""
        self._gate.clear()
        self._gate = asyncio.Event()
        self._gate.set()

    def cut(self) -> None:
        """Reset every connection; new ones work."""
        for link in self._links:
            link.cancel()

    async def down(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._server:
            self._server.close()
            self._server = None
        while links := set(self._links):
            self.cut()
            await asyncio.wait(links)

    async def heal(self) -> None:
        """Pass everything on at once again."""
        self._delay_s = 0.0
        self._gate.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # A task of its own: the server's own task must not be cancelled, or asyncio would log it as a failure.
        link = asyncio.create_task(self._link(client, to_client, self._gate))
        self.accepted += 1
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        writers = [to_client]
        try:
            server, to_server = await asyncio.open_connection(LOOPBACK, self._upstream)
            writers.append(to_server)
            pumps = [
                asyncio.create_task(self._pump(client, to_server, gate, translate=False)),
                asyncio.create_task(self._pump(server, to_client, gate, translate=self._kafka)),
            ]
            try:
                # Whichever side ends first ends both: none of the three protocols closes one direction alone.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        except OSError:
            pass
        finally:
            for writer in writers:
                writer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event, *, translate: bool
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await (self._answer(source) if translate else source.read(_CHUNK)):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await gate.wait()
                target.write(data)
                await target.drain()

    async def _answer(self, source: asyncio.StreamReader) -> bytes:
        """Read one of Kafka's answers whole, since the address must not be split over two pieces."""
        size = await source.readexactly(4)
        body = await source.readexactly(int.from_bytes(size))
        host = LOOPBACK.encode()
        return size + body.replace(host + self._upstream.to_bytes(4), host + self.port.to_bytes(4))
