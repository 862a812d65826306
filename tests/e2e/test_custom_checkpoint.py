"""A user's own checkpoint, a single file with a LoRA baked in, is uploaded, tuned on, and drawn with."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.local.paths import PROJECT
from shared.engines import Engine
from tests.support.upload_world import lora
from tunesmith import demo
from tunesmith.client import Client, TunesmithApiError

pytestmark = pytest.mark.timeout(600)
TINY = PROJECT / "deploy" / "checkpoints" / "tiny-sd15"
SD15 = str(Engine.SD15)
PROMPT = "a photo of a red star in the snow"


@dataclass
class Custom:
    """The names of a baked checkpoint and of the LoRA in it."""

    checkpoint: str
    lora: str


def _bake(folder: Path) -> tuple[Path, Path]:
    """Write a LoRA that changes the image, and tiny-sd15 with that LoRA fused in as one file; return both paths, the latter first."""
    import torch  # noqa: PLC0415 - takes many seconds, and only these tests need it
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

    from deploy.tiny import single_file  # noqa: PLC0415
    from services.trainer.engine.export import write_lora  # noqa: PLC0415
    from shared.models import checkpoints, pipelines, samplers  # noqa: PLC0415

    def load() -> checkpoints.Components:
        return checkpoints.load(TINY, device=torch.device("cpu"), dtype=torch.float32)

    adapted = load()
    torch.manual_seed(0)
    inject_adapter_in_model(
        LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False), adapted.unet
    )
    info = adapted.info
    made = folder / "style.safetensors"
    write_lora(made, {"unet": adapted.unet}, {"engine": SD15, "shape_class": info.shape_class, "trigger_word": "baked1"})
    components = load()
    pipeline = pipelines.build(components, samplers.make("DDIM", components.scheduler_folder))
    pipeline.load_lora_weights(str(folder), weight_name=made.name, adapter_name="baked")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    baked = folder / "baked.safetensors"
    single_file.export(components, baked)
    return baked, made


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return _bake(tmp_path_factory.mktemp("baked"))


@pytest.fixture
def custom(client: Client, baked: tuple[Path, Path]) -> Custom:
    checkpoint, style = baked
    names = Custom("my-checkpoint", "my-style")
    if not client.assets(name=names.checkpoint):
        for file, name, kind in ((checkpoint, names.checkpoint, "checkpoint"), (style, names.lora, "lora")):
            client.wait_for_asset(client.upload(file, name=name, asset_type=kind, engine=SD15))
    return names


def _draw(client: Client, checkpoint: str, loras: dict[str, float] | None = None) -> np.ndarray:
    made = client.generate(
        PROMPT, checkpoint=checkpoint, seed=5, steps=4, image_encoding="png", **({"loras": loras} if loras else {})
    )
    return np.asarray(Image.open(io.BytesIO(made.images[0].data)), dtype=float)


def test_a_baked_checkpoint_draws_as_its_base_with_the_lora(client: Client, custom: Custom) -> None:
    baked, base = _draw(client, custom.checkpoint), _draw(client, demo.BASE)
    with_lora = _draw(client, demo.BASE, {custom.lora: 1.0})

    assert client.asset(custom.checkpoint).data["shape_class"] == client.asset(demo.BASE).data["shape_class"]
    assert client.asset(custom.checkpoint).data["native_size_px"] == 64
    # The file keeps half precision: an error of about a tenth of a level of 255, where the LoRA's effect is several levels.
    effect, error = np.abs(with_lora - base).mean(), np.abs(baked - with_lora).mean()
    assert effect > 2
    assert error < effect / 10


def test_a_tune_on_it_yields_a_lora_that_fits_it_and_its_base(client: Client, custom: Custom) -> None:
    captions: dict[str, str] = json.loads((demo.SAMPLES / "captions.json").read_text())
    name, caption = next(iter(captions.items()))
    image = client.upload(demo.SAMPLES / name, name="custom-star")
    tune = client.create_tune(
        "custom-tune",
        base=custom.checkpoint,
        files=[(image.id, caption)],
        trigger_word="sks1",
        steps=4,
        seed=1,
        rank=2,
        batch_size=1,
        learning_rate=0.02,
    )
    *_, ended = client.watch(tune.id)
    assert ended.status == "succeeded"

    made = client.asset("custom-tune")

    assert made.data["checkpoint"] == client.asset(custom.checkpoint).id
    assert (_draw(client, custom.checkpoint, {"custom-tune": 1.0}) != _draw(client, custom.checkpoint)).any()
    assert (_draw(client, demo.BASE, {"custom-tune": 1.0}) != _draw(client, demo.BASE)).any()


def test_a_lora_of_another_shape_is_refused_by_both_names(client: Client, custom: Custom, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    file.write_bytes(lora(features=768))
    other = client.wait_for_asset(client.upload(file, name="full-size-style", asset_type="lora", engine=SD15))
    mine, theirs = (client.asset(name).data["shape_class"] for name in (custom.checkpoint, other.id))

    with pytest.raises(TunesmithApiError) as refused:
        _draw(client, custom.checkpoint, {"full-size-style": 1.0})

    assert refused.value.status == 422
    assert mine in str(refused.value)
    assert theirs in str(refused.value)


def test_a_checkpoint_that_lacks_a_part_is_rejected_with_the_reason(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "vae.safetensors"
    file.write_bytes((TINY / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())

    with pytest.raises(TunesmithApiError, match="the file is a VAE alone"):
        client.wait_for_asset(client.upload(file, name="no-checkpoint", asset_type="checkpoint", engine=SD15))
