"""The typed client of Tunesmith's HTTP API, and the `tunesmith` command."""

from tunesmith.client import Client, TunesmithApiError
from tunesmith.models import Asset, GeneratedImage, Tune

__all__ = ["Asset", "Client", "GeneratedImage", "Tune", "TunesmithApiError"]
