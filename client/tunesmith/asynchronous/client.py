"""The client of Tunesmith's HTTP API."""

from tunesmith.asynchronous.admin import AsyncAdmin
from tunesmith.asynchronous.assets import AsyncAssets
from tunesmith.asynchronous.datasets import AsyncDatasets
from tunesmith.asynchronous.generations import AsyncGenerations
from tunesmith.asynchronous.images import AsyncImages
from tunesmith.asynchronous.tunes import AsyncTunes


class AsyncClient(AsyncAssets, AsyncTunes, AsyncDatasets, AsyncImages, AsyncGenerations, AsyncAdmin):
    """A client of one Tunesmith server.

    `url` and `token` default to the environment's TUNESMITH_URL and OCTOAI_TOKEN. For the local stack, `tunesmith env` prints
    both. A request that the server refuses for a time, or whose answer is lost, is sent again for up to `patience_s` seconds.
    Nothing happens twice by that.
    """

    async def sign_in_link(self) -> str:
        """Return a link that signs one browser in to the console with this client's key. It works once, within 10 minutes."""
        return f"{self.url}/sign-in#code={(await self._call('POST', '/console/login/codes'))['code']}"
