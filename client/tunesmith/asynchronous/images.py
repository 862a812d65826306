"""Images: generate them and get them, at once or later."""

import base64
import time
from typing import Any

import httpx

from tunesmith.asynchronous import runtime
from tunesmith.asynchronous.transport import AsyncTransport
from tunesmith.errors import TunesmithApiError
from tunesmith.images import Generated, GeneratedImage
from tunesmith.wire import checked

_POLL_S = 0.5


class AsyncImages(AsyncTransport):
    """The part of the client for generated images."""

    async def generate(self, prompt: str, *, engine: str = "sd", **options: Any) -> Generated:
        """Generate images. `options` are the API's fields, for example `loras={"name": 0.9}`, `seed=1` or `num_images=4`.

        >>> made = await client.generate("a sks1 dog in the snow", loras={"my-dog": 0.9}, seed=7, num_images=2)
        >>> [image.seed for image in made.images]
        [7, 8]
        >>> made.images[0].pil().size
        (64, 64)
        """
        return _generated(await self._send("POST", f"/generate/{engine}", json={"prompt": prompt, **options}))

    async def generate_later(self, prompt: str, *, engine: str = "sd", **options: Any) -> str:
        """Request images and return an id for `generated`, without waiting for them. The images are kept for a day.

        >>> response_id = await client.generate_later("a sks1 dog at night", seed=7)
        >>> len((await client.generated(response_id)).images)
        1
        """
        body = {"prompt": prompt, **options}
        accepted = await self._call("POST", f"/generate/{engine}", json=body, headers={"X-OctoAI-Async": "1"})
        return accepted["response_id"]

    async def generated(self, response_id: str, timeout_s: float = 300.0) -> Generated:
        """Wait for images that were requested before, and return them. Raises TunesmithApiError if they are not ready in time."""
        deadline = time.monotonic() + timeout_s
        path = f"/generate/responses/{response_id}"
        while (found := await self._call("GET", path))["status"] != "completed":
            if time.monotonic() > deadline:
                raise TunesmithApiError(0, "timeout", f"{response_id}: still {found['status']} after {timeout_s:.0f} s")
            await runtime.sleep(_POLL_S)
        return _generated(await self._send("GET", f"{path}/result"))


def _generated(answer: httpx.Response) -> Generated:
    body = checked(answer)
    kept = [image for image in body["images"] if not image["removed_for_safety"]]
    images = [GeneratedImage(data=base64.b64decode(image["image_b64"]), seed=image["seed"]) for image in kept]
    notice = answer.headers.get("X-Tunesmith-Notice", "")
    return Generated(images=images, notice=notice, removed=len(body["images"]) - len(kept))
