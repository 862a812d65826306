"""Lists and their filters, as each SDK sends them: repeated parameters, commas, slashes, booleans."""

from typing import Any

import pytest

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(300)
SD15, SDXL = "image/stable-diffusion-v1-5", "image/stable-diffusion-xl-v1-0"


@pytest.fixture(scope="session")
def images(sdk: Driver, client: Client) -> list[str]:
    """Ids of two images that the SDK has uploaded, the newest first."""
    stem = f"lists-{str(sdk.sdk).replace('.', '-')}-{len(client.assets())}"
    made = [sdk.do("upload", path=str(demo.SAMPLES / f"star-{n}.png"), name=f"{stem}-{n}") for n in (1, 2)]
    return [asset["id"] for asset in reversed(made)]


def _ids(found: dict[str, Any]) -> list[str]:
    return [item["id"] for item in found["data"]]


def test_the_newest_comes_first_and_pages_follow_each_other(sdk: Driver, images: list[str]) -> None:
    first, second = sdk.do("assets", limit=1), sdk.do("assets", limit=1, offset=1)

    assert _ids(first) + _ids(second) == images
    # octoai-sdk returns the items alone.
    if "total" in first:
        assert first["has_more"] is True
        assert first["total"] >= 2


def test_assets_by_name(sdk: Driver, images: list[str]) -> None:
    asset = sdk.do("asset", key=images[0])

    assert _ids(sdk.do("assets", name=asset["name"])) == [asset["id"]]
    assert _ids(sdk.do("assets", name="no-asset-has-this-name")) == []


def test_assets_by_type(sdk: Driver, images: list[str]) -> None:
    if "assets_by_type" not in sdk.offers:
        # Until 0.7.5 the SDK's filter has a name that its inner client does not know.
        assert (sdk.sdk.package, sdk.sdk.number < (0, 7, 5)) == ("octoai-sdk", True)
        return
    assert set(images) <= set(_ids(sdk.do("assets_by_type", asset_type=["file"])))
    assert set(images) <= set(_ids(sdk.do("assets_by_type", asset_type=["lora", "file"])))
    assert not set(images) & set(_ids(sdk.do("assets_by_type", asset_type=["lora", "checkpoint"])))


def test_the_platforms_public_ones(sdk: Driver, images: list[str]) -> None:
    public = sdk.do("assets", owner="octoai", is_public=True, engine=[SD15])["data"]

    assert {"default-sd15", "tiny-sd15"} <= {asset["name"] for asset in public}
    assert {asset["data"]["engine"] for asset in public} == {SD15}
    assert not {asset["id"] for asset in public} & set(images)
    others = sdk.do("assets", owner="octoai", is_public=True, engine=[SDXL])["data"]
    assert {asset["data"]["engine"] for asset in others} <= {SDXL}


def test_assets_by_data_type(sdk: Driver, images: list[str]) -> None:
    of_both = [sdk.do("assets", owner="octoai", data_type=kind)["data"] for kind in ("fp16", "fp32")]

    for kind, found in zip(("fp16", "fp32"), of_both, strict=True):
        assert {asset["data"]["data_type"] for asset in found} <= {kind}
    assert any(of_both)


def test_the_filters_of_the_later_sdks(sdk: Driver, images: list[str]) -> None:
    if sdk.sdk.package == "octoai-sdk":
        with pytest.raises(Exception, match="engine_type"):
            sdk.do("assets", engine_type="image")
        return
    assert _ids(sdk.do("assets", asset_ids=",".join(images))) == images
    if "assets_by_format" in sdk.offers:
        assert set(images) <= set(_ids(sdk.do("assets_by_format", file_format=["png", "jpg"])))
    else:
        assert (sdk.sdk.package, sdk.sdk.number < (1, 11)) == ("octoai", True)
    assert "default-sd15" in {asset["name"] for asset in sdk.do("assets", owner="octoai", engine_type="image")["data"]}
    assert sdk.do("assets", owner="octoai", engine_type="text")["data"] == []


def test_tunes_by_each_of_their_filters(sdk: Driver, tuning: Driver | Curl, client: Client, images: list[str]) -> None:
    base = client.asset("octoai:default-sd15").id
    names = [f"{client.asset(image).name}-tune" for image in images]
    made = [
        tuning.do("create_tune", name=name, base=base, files={images[0]: f"a {name} star"}, trigger_word=name, steps=1)["id"]
        for name in names
    ]
    for tune_id in made:
        tuning.do("cancel_tune", tune_id=tune_id)

    assert _ids(tuning.do("tunes", name=names[0])) == [made[0]]
    assert _ids(tuning.do("tunes", trigger_words=[names[1]])) == [made[1]]
    assert {*made} <= {*_ids(tuning.do("tunes", base_checkpoint=base, tune_type="lora_tune"))}
    page = tuning.do("tunes", limit=1, offset=1)
    assert (_ids(page), page["has_more"], page["total"] >= 2) == ([made[0]], page["total"] > 2, True)
    for tune_id in made:
        tuning.do("delete_tune", tune_id=tune_id)
    assert not {*made} & {*_ids(tuning.do("tunes"))}
