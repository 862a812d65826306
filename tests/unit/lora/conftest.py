"""Small random checkpoints, loaded once, and the switch of their LoRAs."""

from collections.abc import Iterator

import pytest
import torch

from services.inference.worker.lora_switch import LoraSwitch
from shared.engines import Engine
from shared.models import checkpoints
from shared.models.checkpoints import Components
from tests.support.tiny_pipelines import save_tiny_pipeline


def _loaded(factory: pytest.TempPathFactory, engine: Engine) -> Components:
    folder = factory.mktemp(engine.name)
    save_tiny_pipeline(engine, folder)
    return checkpoints.load(folder, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Components:
    """A checkpoint of SD 1.5's kind."""
    return _loaded(tmp_path_factory, Engine.SD15)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Components:
    """A checkpoint of SDXL's kind."""
    return _loaded(tmp_path_factory, Engine.SDXL)


@pytest.fixture
def switch(sd15: Components) -> Iterator[LoraSwitch]:
    """The switch of `sd15`; after a test every LoRA is off."""
    switch = LoraSwitch(sd15)
    yield switch
    switch.use([])
