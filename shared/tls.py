"""TLS of connections that this process opens."""

import ssl
from pathlib import Path


def verified(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that checks the server's certificate and name, by the CAs in this file or else by the system's."""
    return ssl.create_default_context(cafile=ca_file)


def unverified() -> ssl.SSLContext:
    """Return a context that encrypts and checks nothing, as libpq's `sslmode=require` does."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
