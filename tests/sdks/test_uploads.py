"""Each SDK's own ways to upload: to a presigned address, and with credentials for the one object."""

import pytest

from tests.sdks.driver import Driver
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("way", ["upload_and_wait", "upload_by_sts"])
def test_an_image_is_uploaded(sdk: Driver, client: Client, way: str) -> None:
    picture = demo.SAMPLES / "star-2.png"
    name = f"{way}-{str(sdk.sdk).replace('.', '-')}-{len(client.assets())}"
    made = sdk.do(way, path=str(picture), name=name)

    ready = client.wait_for_asset(client.asset(made["id"]))
    assert (ready.name, ready.status, ready.data["file_format"]) == (name, "ready", "png")
    assert sdk.do("asset", key=name)["id"] == made["id"]
