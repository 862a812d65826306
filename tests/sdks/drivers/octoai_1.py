"""Drives octoai 1.x as its users did. Only the line with `OctoAIEnvironment` points it at another server."""

import inspect
import os
from importlib.metadata import version

import httpx
from _serve import serve
from octoai.asset_library import Data_File
from octoai.client import InferenceFuture, OctoAI, OctoAIEnvironment
from octoai.fine_tuning import Details_LoraTune, LoraTuneCheckpoint, LoraTuneFile

BASE = os.environ["SERVER"]
environment = OctoAIEnvironment(default=BASE, image_gen=BASE, text_gen=BASE)
client = OctoAI(environment=environment, api_key=os.environ["OCTOAI_TOKEN"], timeout=300)
# `infer_async` and the methods that poll its result send a key only if the SDK is given an HTTP client that has one.
keyed = httpx.Client(headers={"Authorization": f"Bearer {os.environ['OCTOAI_TOKEN']}"}, timeout=300)
inferring = OctoAI(environment=environment, api_key=os.environ["OCTOAI_TOKEN"], httpx_client=keyed)
library, tuning = client.asset_library, client.fine_tuning


def _file(path):
    return Data_File(file_format=path.rpartition(".")[2])


def upload(path, name, description=None):
    """Do all steps of `create_from_file` but the last, which waits until the file is ready."""
    more = {} if description is None else {"description": description}
    created = library.create(asset_type="file", data=_file(path), name=name, **more)
    with open(path, "rb") as file:
        httpx.put(created.transfer_api.put_url, content=file.read()).raise_for_status()
    library.complete_upload(created.asset.id)
    return library.get(created.asset.id).asset


def upload_and_wait(path, name, **options):
    return library.create_from_file(file=path, data=_file(path), name=name, **options)


def create_tune(name, base, files, trigger_word, steps):
    details = Details_LoraTune(
        base_checkpoint=LoraTuneCheckpoint(checkpoint_id=base),
        files=[LoraTuneFile(file_id=file_id, caption=caption) for file_id, caption in files.items()],
        trigger_words=[trigger_word],
        steps=steps,
    )
    return tuning.create(name=name, details=details)


def generate(engine, **options):
    made = getattr(client.image_gen, f"generate_{engine}")(**options)
    return {
        "images": [image.image_b64 for image in made.images if not image.removed_for_safety],
        "removed_for_safety": sum(image.removed_for_safety for image in made.images),
        "seeds": [image.seed for image in made.images],
    }


def fetch(future):
    done = inferring.get_future_result(InferenceFuture(**future))
    return {"images": [image["image_b64"] for image in done["images"]], "seeds": [image["seed"] for image in done["images"]]}


verbs = {
    "upload": upload,
    "upload_by_sts": lambda path, name: upload_and_wait(path, name, transfer_api_type="sts"),
    "upload_and_wait": upload_and_wait,
    "asset": lambda key: library.get(key).asset,
    "assets": library.list,
    "assets_by_type": library.list,
    "delete_asset": library.delete,
    "create_tune": create_tune,
    "tune": tuning.get,
    "tunes": lambda base_checkpoint=None, **filters: tuning.list(base_checkpoint_id=base_checkpoint, **filters),
    "cancel_tune": tuning.cancel,
    "delete_tune": tuning.delete,
    "generate": generate,
    "start": lambda engine, **options: inferring.infer_async(f"{BASE}/generate/{engine}", options),
    "is_ready": lambda future: inferring.is_future_ready(InferenceFuture(**future)),
    "fetch": fetch,
}
if hasattr(library, "create_from_url"):
    verbs["upload_from_url"] = lambda url, name: library.create_from_url(url=url, data=Data_File(file_format="png"), name=name)
if "file_format" in inspect.signature(library.list).parameters:
    verbs["assets_by_format"] = library.list
serve(verbs, version("octoai"))
