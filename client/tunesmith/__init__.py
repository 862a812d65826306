"""The typed client of Tunesmith's HTTP API, and the `tunesmith` command."""

from tunesmith.client import Asset, AsyncClient, AsyncTune, Client, Generated, GeneratedImage, Tune, TunesmithApiError

__all__ = ["Asset", "AsyncClient", "AsyncTune", "Client", "Generated", "GeneratedImage", "Tune", "TunesmithApiError"]
