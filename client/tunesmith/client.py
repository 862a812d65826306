"""The clients of Tunesmith's HTTP API, and what they return."""

from tunesmith.asynchronous.client import AsyncClient
from tunesmith.asynchronous.tune import AsyncTune
from tunesmith.errors import TunesmithApiError
from tunesmith.images import Generated, GeneratedImage
from tunesmith.models import Asset, WhatIf
from tunesmith.synchronous.client import Client
from tunesmith.synchronous.tune import Tune

__all__ = [
    "Asset",
    "AsyncClient",
    "AsyncTune",
    "Client",
    "Generated",
    "GeneratedImage",
    "Tune",
    "TunesmithApiError",
    "WhatIf",
]
