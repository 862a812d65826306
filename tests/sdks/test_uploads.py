"""Each SDK's own ways to upload: to a presigned address, and with credentials for one object."""

import pytest

from tests.sdks.driver import Driver
from tests.sdks.refusals import refused
from tunesmith import demo
from tunesmith.client import Client

FROM_URL = {"octoai-sdk": (0, 9), "octoai": (1, 0, 1)}
"""The first version that lets the server fetch a file; all SDKs of npm do."""
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("way", ["upload_and_wait", "upload_by_sts"])
def test_an_image_is_uploaded(sdk: Driver, client: Client, way: str) -> None:
    star = demo.SAMPLES / "star-2.png"
    name = f"{way}-{str(sdk.sdk).replace('.', '-')}-{len(client.assets())}"
    made = sdk.do(way, path=str(star), name=name)

    ready = client.wait_for_asset(client.asset(made["id"]))
    assert (ready.name, ready.status, ready.data["file_format"]) == (name, "ready", "png")
    assert sdk.do("asset", key=name)["id"] == made["id"]


def test_the_server_fetches_an_image_from_an_address(sdk: Driver, client: Client) -> None:
    """The address is a link to an image in the stack's own store, which the stack of the tests allows."""
    if "upload_from_url" not in sdk.offers:
        assert sdk.sdk.number < FROM_URL[sdk.sdk.package]
        return
    name = f"from-url-{str(sdk.sdk).replace('.', '-')}-{len(client.assets())}"
    original = client.wait_for_asset(client.upload(demo.SAMPLES / "star-3.png", name=f"{name}-original"))
    link = client._call("GET", f"/v1/assets/{original.id}")["transfer_api"]["get_url"]

    made = sdk.do("upload_from_url", url=link, name=name)

    ready = client.wait_for_asset(client.asset(made["id"]))
    assert (ready.name, ready.status, ready.data["file_format"]) == (name, "ready", "png")
    assert ready.size_bytes == original.size_bytes


def test_an_address_that_the_server_may_not_fetch_from_is_refused(sdk: Driver) -> None:
    if "upload_from_url" not in sdk.offers:
        assert sdk.sdk.number < FROM_URL[sdk.sdk.package]
        return
    with refused(sdk, 422, says="this server fetches nothing from"):
        sdk.do("upload_from_url", url="https://10.0.0.1/star.png", name="from-inside")
