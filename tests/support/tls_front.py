"""TLS in front of a plain server, with a CA of its own: what a service meets where its backends speak TLS."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Return the files of a CA's certificate, and of a key with its certificate that the CA signed for this name."""
    ca, ca_key, key, request, certificate = (folder / f"{part}.pem" for part in ("ca", "ca-key", "key", "request", "certificate"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
    names = f"subjectAltName=DNS:{name}"
    _openssl("req", "-x509", *curve, str(ca_key), "-subj", "/CN=test CA", "-days", "2", "-out", str(ca))
    _openssl("req", *curve, str(key), "-subj", f"/CN={name}", "-addext", names, "-out", str(request))
    signing = ("-CA", str(ca), "-CAkey", str(ca_key), "-days", "2", "-copy_extensions", "copy")
    _openssl("x509", "-req", "-in", str(request), *signing, "-out", str(certificate))
    pair = folder / "pair.pem"
    pair.write_text(key.read_text() + certificate.read_text())
    return ca, pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextlib.asynccontextmanager
async def tls_front(pair: Path, target: tuple[str, int], *, postgres: bool = False) -> AsyncIterator[int]:
    """Serve TLS on a port of this machine, yield the port, and pass what arrives on to `target`.

    With `postgres` the client asks for TLS first, and a client that does not is refused.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        try:
            if postgres:
                if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
                    return
                writer.write(b"S")
            await writer.start_tls(context)
            to_reader, to_writer = await asyncio.open_connection(*target)
            await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
