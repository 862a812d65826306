"""Drives octoai-sdk 0.6.4 to 0.10.1 as its users did. Only the line with `BASE` points it at another server."""

import inspect
import os
import time

import octoai
from _serve import serve
from clients.asset_lake.models import AssetType, BaseEngine, DataType
from octoai.client import Client, InferenceFuture
from octoai.clients.asset_orch import AssetOrchestrator, FileData
from octoai.clients.image_gen import ImageGenerator

# The SDK's own default ends with a slash, too.
BASE = os.environ["SERVER"] + "/"
library = AssetOrchestrator(token=os.environ["OCTOAI_TOKEN"], endpoint=BASE)
images = ImageGenerator(token=os.environ["OCTOAI_TOKEN"], api_endpoint=BASE)
client = Client(token=os.environ["OCTOAI_TOKEN"])


def upload(path, name, **options):
    return library.create(file=path, data=FileData(path.rpartition(".")[2]), name=name, **options)


def wait(asset):
    if hasattr(library, "wait_for_ready"):
        return library.wait_for_ready(asset, poll_interval=1)
    while getattr(asset.status, "value", asset.status) != "ready":  # as users of the older versions wrote it
        time.sleep(1)
        asset = library.get(id=asset.id)
    return asset


by_type = "asset_type" in inspect.signature(library.list).parameters


def assets(asset_type=None, engine=None, data_type=None, **filters):
    if asset_type:
        filters["asset_type"] = [AssetType(word) for word in asset_type]
    if engine:
        filters["engine"] = [BaseEngine(word) for word in engine] if by_type else BaseEngine(engine[0])
    if data_type:
        filters["data_type"] = DataType(data_type)
    return {"data": library.list(**filters)}


def generate(engine, **options):
    made = images.generate(engine=engine, **options)
    return {"images": [image.data for image in made.images], "removed_for_safety": made.removed_for_safety}


def fetch(future):
    done = client.get_future_result(InferenceFuture(**future))
    return {"images": [image["image_b64"] for image in done["images"]], "seeds": [image["seed"] for image in done["images"]]}


verbs = {
    "upload": upload,
    "upload_by_sts": lambda path, name: upload(path, name, transfer_api_type="sts"),
    "upload_and_wait": lambda path, name: wait(upload(path, name)),
    "asset": lambda key: library.get(**({"id": key} if key.startswith("asset_") else {"name": key})),
    "assets": assets,
    "delete_asset": library.delete,
    "generate": generate,
    "start": lambda engine, **options: client.infer_async(f"{BASE}generate/{engine}", options),
    "is_ready": lambda future: client.is_future_ready(InferenceFuture(**future)),
    "fetch": fetch,
}
if by_type:
    verbs["assets_by_type"] = assets
if "url" in inspect.signature(library.create).parameters:
    verbs["upload_from_url"] = lambda url, name: wait(library.create(url=url, data=FileData("png"), name=name))

try:
    from octoai.clients.fine_tuning import FineTuningClient
except ImportError:
    pass  # before 0.8.0 users called the HTTP API for tunes
else:
    tuning = FineTuningClient(token=os.environ["OCTOAI_TOKEN"], endpoint=BASE)

    def create_tune(name, base, files, trigger_word, steps):
        return tuning.create(name=name, base_checkpoint=base, files=files, trigger_words=trigger_word, steps=steps)

    verbs |= {
        "create_tune": create_tune,
        "tune": lambda tune_id: tuning.get(id=tune_id),
        "tunes": tuning.list,
        "cancel_tune": lambda tune_id: tuning.cancel(id=tune_id),
        "delete_tune": lambda tune_id: tuning.delete(id=tune_id),
    }

serve(verbs, octoai.__version__)
