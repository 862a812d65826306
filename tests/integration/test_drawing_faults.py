"""Whatever fails while a request is drawn, the next request gets the right image."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from services.inference.worker.latents import Precision
from services.inference.worker.materials import Materials
from services.inference.worker.painter import Painter
from services.inference.worker.residency import Residency
from services.inference.worker.steps import never
from shared.engines import Engine
from shared.errors import InvalidError
from shared.models import checkpoints
from tests.support.drawing_world import Studio, differs, make_studio, noise, pixels, ref

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
BOTH = pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL], ids=["sd", "sdxl"])
STAGES: dict[str, tuple[Any, str]] = {
    "load": (checkpoints, "load"),
    "text": (CLIPTextModel, "forward"),
    "encode": (AutoencoderKL, "encode"),
    "denoise": (UNet2DConditionModel, "forward"),
    "decode": (AutoencoderKL, "decode"),
}
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error")]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from make_studio(tmp_path_factory.mktemp("studio"))


def fail_after(calls: int, error: Exception, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises in every call after the first ones."""
    left = calls

    def call(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return real(*args, **options)

    return call


@BOTH
@pytest.mark.parametrize("error", ERRORS, ids=["memory", "other"])
@pytest.mark.parametrize("stage", STAGES)
def test_after_a_failure_the_next_image_is_right(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception, engine: Engine
) -> None:
    start = studio.start(noise())
    right = studio.draw(engine, start=start)
    owner, name = STAGES[stage]
    if stage in {"load", "text"}:
        # Neither is called again for what is loaded and read already.
        studio.painter.residency.forget_used()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fail_after(2 if stage == "denoise" else 0, error, getattr(owner, name)))
        with pytest.raises(type(error)):
            studio.draw(engine, start=start)

    assert ref(engine.name).sha256 not in studio.painter.residency.held
    assert not differs(studio.draw(engine, start=start), right)


def test_a_batch_that_exceeds_the_memory_is_halved(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [studio.draw(seed=seed) for seed in range(5)]
    real, sizes = UNet2DConditionModel.forward, list[int]()

    def forward(unet: Any, latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(len(latents) // 2)
        if sizes[-1] > 1:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return real(unet, latents, *args, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    steps: list[tuple[int, int]] = []
    inputs = studio.inputs(Engine.SD15, seeds=list(range(5)))
    drawing = studio.painter.draw(inputs, Materials(studio.folders[Engine.SD15]), lambda step, of, _: steps.append((step, of)))

    assert sizes[:3] == [4, 2, 1]
    assert [pixels(studio.opened(image)).tolist() for image in drawing.images] == [pixels(image).tolist() for image in alone]
    assert [step for step, _ in steps] == list(range(1, 21))
    assert all(step <= of for step, of in steps)


@BOTH
def test_an_image_agrees_with_the_one_of_its_seed_alone(studio: Studio, engine: Engine) -> None:
    inputs = studio.inputs(engine, seeds=[3, 4, 5, 6, 7], sampler="K_EULER_ANCESTRAL")
    drawing = studio.painter.draw(inputs, Materials(studio.folders[engine]), never)

    for image, seed in zip(drawing.images, inputs.seeds, strict=True):
        alone = studio.draw(engine, seed=seed, sampler="K_EULER_ANCESTRAL")
        assert abs(pixels(studio.opened(image)) - pixels(alone)).max() <= 2


def overflowing(studio: Studio, folder: Path) -> Studio:
    """Return a studio whose checkpoint has a VAE with values beyond float16; its norms bring them back into the usual range."""
    shutil.copytree(studio.folders[Engine.SD15], folder)
    [path] = (folder / "vae").glob("*.safetensors")
    weights = load_file(path)
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        weights[name] *= 1e6
    save_file(weights, path, {"format": "pt"})
    return Studio({Engine.SD15: folder, Engine.SDXL: studio.folders[Engine.SDXL]})


def test_a_vae_that_overflows_is_computed_in_float32_from_then_on(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = overflowing(studio, tmp_path / "overflowing")
    right = studio.draw()
    residency = Residency(torch.device("cpu"), max_bytes=2**30)
    residency.precision = Precision(torch.float16)
    painter = Painter(residency)
    kinds: list[bool] = []
    real = AutoencoderKL.decode

    def decode(vae: Any, *args: Any, **options: Any) -> Any:
        kinds.append(torch.is_autocast_enabled("cpu"))
        return real(vae, *args, **options)

    monkeypatch.setattr(AutoencoderKL, "decode", decode)
    for _ in range(2):
        [drawn] = studio.results(painter, seeds=[5])
        assert not differs(studio.opened(drawn), right)
    assert kinds == [True, False, False]
    # Another checkpoint still has the faster precision.
    painter.draw(studio.inputs(Engine.SDXL, seeds=[5]), Materials(studio.folders[Engine.SDXL]), never)
    assert kinds[3:] == [True]


def test_latents_that_are_not_finite_are_no_black_image(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(_unet: Any, latents: torch.Tensor, *_: Any, **__: Any) -> Any:
        return (torch.full_like(latents, torch.nan),)

    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    with pytest.raises(InvalidError, match="the drawn latents are not finite; lower"):
        studio.draw()


def test_weights_can_be_changed_outside_of_a_draw(studio: Studio) -> None:
    studio.draw()
    # What a request loads stays as it is loaded.
    resident: Any = studio.painter.residency.checkpoint(ref("SD15").sha256, Path())

    assert not any(weights.is_inference() for module in resident.modules for weights in module.parameters())
    weights = resident.components.unet.conv_in.weight
    weights.detach().mul_(1.0)


def test_a_text_is_read_once_and_what_is_not_needed_never(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = CLIPTextModel.forward

    def forward(encoder: Any, *args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(encoder, *args, **options)

    monkeypatch.setattr(CLIPTextModel, "forward", forward)
    studio.painter.residency.forget_used()
    # Without guidance no negative prompt is read.
    studio.draw(cfg_scale=1.0, negative_prompt="blue")
    assert len(calls) == 1
    first = studio.draw(negative_prompt="blue")
    assert len(calls) == 2
    assert not differs(studio.draw(negative_prompt="blue"), first)
    studio.draw(negative_prompt="blue", seed=6)
    assert len(calls) == 2
    studio.draw(negative_prompt="blue", clip_skip=2)
    assert len(calls) == 4
