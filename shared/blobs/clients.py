"""The `minio` client and its connections, with timeouts that are short enough for threads of a bounded pool."""

from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio

READ_S = 30.0
THREADS = 8
CONNECT_S = 2.0


def client(url: str, access_key: str, secret_key: str, region: str, pool: urllib3.PoolManager) -> Minio:
    """Return a client of the store at this URL; its region is set, so that signing needs no network call."""
    parts = urlsplit(url)
    return Minio(
        parts.netloc,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        secure=parts.scheme == "https",
        http_client=pool,
    )


def connections(
    *, ca_file: Path | None = None, read_s: float = READ_S, retries: int = 2, maxsize: int = THREADS
) -> urllib3.PoolManager:
    """Return connections for one client: how long a read may take in seconds, how often it is retried, how many are kept."""
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s),
        maxsize=maxsize,
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(ca_file or certifi.where()),
        retries=urllib3.Retry(total=retries, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
