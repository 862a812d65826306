"""The client of Tunesmith's HTTP API.

Written from `asynchronous/client.py` by `python -m tests.support.synchronous`.
"""

from tunesmith.synchronous.admin import Admin
from tunesmith.synchronous.assets import Assets
from tunesmith.synchronous.datasets import Datasets
from tunesmith.synchronous.generations import Generations
from tunesmith.synchronous.images import Images
from tunesmith.synchronous.tunes import Tunes


class Client(Assets, Tunes, Datasets, Images, Generations, Admin):
    """A client of one Tunesmith server.

    `url` and `token` default to the environment's TUNESMITH_URL and OCTOAI_TOKEN. For the local stack, `tunesmith env` prints
    both. A request that the server refuses for a time, or whose answer is lost, is sent again for up to `patience_s` seconds.
    Nothing happens twice by that.
    """

    def sign_in_link(self) -> str:
        """Return a link that signs one browser in to the console with this client's key. It works once, within 10 minutes."""
        return f"{self.url}/sign-in#code={(self._call('POST', '/console/login/codes'))['code']}"
