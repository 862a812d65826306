"""A ControlNet's configuration tells its engine and which checkpoints fit, and is refused when it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import checkpoint
from shared.formats.controlnet import ControlNetInfo
from tests.support.upload_world import safetensors

CONFIG: dict[str, Any] = {
    "_class_name": "ControlNetModel",
    "addition_embed_type": None,
    "cross_attention_dim": 768,
    "block_out_channels": [320, 640, 1280, 1280],
}


def packed(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "diffusion_pytorch_model.safetensors").write_bytes(safetensors({"x": [1]}))
    checkpoint.pack(folder / "model", folder / "model.tar")
    return folder / "model.tar"


@pytest.mark.parametrize(
    ("added", "engine"), [(None, Engine.CONTROLNET_SD15), ("text_time", Engine.CONTROLNET_SDXL)], ids=["sd15", "sdxl"]
)
def test_its_configuration_tells_the_engine(tmp_path: Path, added: str | None, engine: Engine) -> None:
    info = checkpoint.read_file(packed(tmp_path, CONFIG | {"addition_embed_type": added}))

    assert isinstance(info, ControlNetInfo)
    assert info.engine is engine
    assert info.data == {"cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]}


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "UNet2DConditionModel"},
        {"addition_embed_type": "image"},
        {"addition_embed_type": ["text_time"]},
        {"cross_attention_dim": "768"},
        {"block_out_channels": 320},
        {"block_out_channels": [320, 0]},
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"config\.json: "):
        checkpoint.read_file(packed(tmp_path, CONFIG | change))
