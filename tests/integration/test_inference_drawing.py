"""A worker draws the same images as diffusers called directly, and each option does what the docs say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from services.inference.inputs import Refine
from services.inference.worker.materials import Materials
from services.inference.worker.painter import Painter, run_size
from services.inference.worker.steps import DrawCancelledError
from shared.engines import Engine
from shared.errors import InvalidError
from shared.safety import Safety
from tests.support.drawing_world import (
    PROMPT,
    PX,
    Studio,
    differs,
    direct_pipelines,
    half_mask,
    make_studio,
    noise,
    pixels,
    ref,
    save_controlnet,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
BOTH = pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL], ids=["sd", "sdxl"])


@pytest.fixture(scope="module")
def direct(studio: Studio) -> dict[Engine, Any]:
    return direct_pipelines(studio.folders)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from make_studio(tmp_path_factory.mktemp("studio"))


@BOTH
def test_image_to_image_is_diffusers(studio: Studio, direct: dict[Engine, Any], engine: Engine) -> None:
    init = noise()
    kinds = {Engine.SD15: "StableDiffusionImg2ImgPipeline", Engine.SDXL: "StableDiffusionXLImg2ImgPipeline"}
    more = {"add_watermarker": False} if engine is Engine.SDXL else {}
    pipeline = getattr(diffusers, kinds[engine])(**direct[engine].components, **more)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=PROMPT,
        image=init,
        strength=0.5,
        guidance_scale=5.0,
        num_inference_steps=4,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]

    assert not differs(studio.draw(engine, start=studio.start(init, strength=0.5)), expected)
    # At strength 0 one step is still drawn.
    studio.draw(engine, start=studio.start(init, strength=0.0))


@BOTH
def test_outside_the_mask_every_pixel_is_the_originals(studio: Studio, engine: Engine) -> None:
    init, mask = noise(), half_mask()

    drawn = studio.draw(engine, start=studio.start(init, mask))

    kept, painted = pixels(drawn)[:, : PX // 2], pixels(drawn)[:, PX // 2 :]
    assert (kept == pixels(init)[:, : PX // 2]).all()
    assert (painted != pixels(init)[:, PX // 2 :]).any()


def test_a_small_checkpoint_keeps_the_original_at_its_full_size(studio: Studio) -> None:
    size = (96, 64)
    init, mask = noise(1, size), half_mask(size)

    drawn, notices = studio.drawn(width=96, height=64, start=studio.start(init, mask))

    assert drawn.size == size
    assert (pixels(drawn)[:, :48] == pixels(init)[:, :48]).all()
    assert "drawn at 40x24, enlarged to 96x64" in notices[0]


def test_full_resolution_paints_only_the_masked_part(studio: Studio) -> None:
    size = (128, 128)
    init, mask = noise(2, size), Image.new("L", size)
    mask.paste(255, (96, 96, 112, 112))

    def draw(**options: Any) -> Image.Image:
        return studio.draw(width=128, height=128, start=studio.start(init, mask, **options))

    whole = draw()
    close = draw(full_res=True, full_res_padding=8)
    wider = draw(full_res=True, full_res_padding=40)

    for drawn in (whole, close, wider):
        changed = (pixels(drawn) != pixels(init)).any(axis=2)
        changed[96:112, 96:112] = False
        assert not changed.any()
    assert differs(close, whole)
    assert differs(close, wider)


def test_a_mask_without_white_is_refused(studio: Studio) -> None:
    with pytest.raises(InvalidError, match="mask_image: no pixel is white"):
        studio.draw(start=studio.start(noise(), Image.new("L", (PX, PX))))
    with pytest.raises(InvalidError, match="init_image fills the whole image"):
        studio.draw(start=studio.start(noise(), outpainting=True))


def test_outpainting_keeps_the_original_area_and_fills_the_rest_before_it_is_painted(studio: Studio) -> None:
    small = noise(3, (16, 16))

    drawn = studio.draw(start=studio.start(small, outpainting=True))

    assert (pixels(drawn)[8:24, 8:24] == pixels(small)).all()
    # With a mask, outpainting is inpainting from another source.
    masked = [studio.draw(start=studio.start(noise(), half_mask(), outpainting=out)) for out in (False, True)]
    assert differs(*masked)
    assert (pixels(masked[1])[:, : PX // 2] == pixels(noise())[:, : PX // 2]).all()


@BOTH
@pytest.mark.parametrize("task", ["text", "image", "inpainting"])
def test_a_controlnet_is_followed_until_it_is_stopped(studio: Studio, engine: Engine, task: str, tmp_path: Path) -> None:
    folder = save_controlnet(studio.folders[engine], tmp_path / "controlnet")
    start = {
        "text": None,
        "image": studio.start(noise()),
        "inpainting": studio.start(noise(), half_mask()),
    }[task]

    def draw(followed: Image.Image | None, **options: Any) -> Image.Image:
        fields: dict[str, Any] = {"start": start}
        if followed is not None:
            fields |= {"control": studio.control(followed, **options), "files": {"controlnet": folder}}
            # One name for each engine: the residency identifies models by their bytes.
            fields["control"].model = ref(f"controlnet-{engine.name}")
        return studio.draw(engine, **fields)

    plain, followed = draw(None), draw(noise(7))
    assert differs(followed, plain)
    assert differs(followed, draw(noise(8)))
    assert differs(followed, draw(noise(7), scale=0.3))
    assert differs(followed, draw(noise(7), early_stop=0.5))
    assert differs(followed, draw(noise(7), preprocess="canny"))
    assert not differs(plain, draw(noise(7), scale=0.0))
    assert not differs(plain, draw(noise(7), early_stop=0.0))


def test_a_controlnet_of_another_shape_is_refused_by_name(studio: Studio, tmp_path: Path) -> None:
    folder = save_controlnet(studio.folders[Engine.SDXL], tmp_path / "controlnet")
    control = studio.control(noise())
    control.model = ref("of-sdxl")

    with pytest.raises(InvalidError, match="controlnet: of-sdxl does not fit the checkpoint SD15"):
        studio.draw(control=control, files={"controlnet": folder})


def test_a_checkpoint_as_its_own_refiner_draws_what_it_draws_alone(studio: Studio) -> None:
    steps = {"steps": 10, "files": {"refiner": studio.folders[Engine.SDXL]}}
    alone = studio.draw(Engine.SDXL, steps=10)

    split = studio.draw(Engine.SDXL, **steps, refine=Refine(model=ref("SDXL"), high_noise_frac=0.8))

    assert np.abs(pixels(split) - pixels(alone)).max() <= 2


def test_a_refiner_takes_over_at_its_share_of_the_noise(studio: Studio, tmp_path: Path) -> None:
    from tests.support.tiny_pipelines import save_tiny_pipeline  # noqa: PLC0415

    save_tiny_pipeline(Engine.SDXL, tmp_path / "other", seed=9)
    files = {"refiner": tmp_path / "other"}

    def draw(share: float, **options: Any) -> tuple[Image.Image, list[str]]:
        refine = Refine(model=ref("other"), high_noise_frac=share)
        return studio.drawn(Engine.SDXL, steps=10, files=files, refine=refine, **options)

    alone = studio.draw(Engine.SDXL, steps=10)
    assert differs(draw(0.8)[0], alone)
    assert differs(draw(0.8)[0], draw(0.5)[0])
    assert not differs(draw(1.0)[0], alone)
    assert differs(draw(0.5, start=studio.start(noise()))[0], studio.draw(Engine.SDXL, steps=10, start=studio.start(noise())))
    inpainted = draw(0.8, start=studio.start(noise(), half_mask()))
    assert inpainted[1] == ["use_refiner: ignored, because the refiner has no part in this request; the base drew alone"]


def test_a_vae_replaces_the_checkpoints_own_and_must_fit(studio: Studio, tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415

    own = AutoencoderKL.from_pretrained(studio.folders[Engine.SD15], subfolder="vae")
    same = tmp_path / "same.safetensors"
    save_file({name: weights.contiguous() for name, weights in own.state_dict().items()}, same, _groups(own))
    torch.manual_seed(3)
    other = AutoencoderKL.from_config(own.config)
    save_file({name: weights.contiguous() for name, weights in other.state_dict().items()}, tmp_path / "other", _groups(own))
    plain = studio.draw()

    assert not differs(studio.draw(vae=ref("same"), files={"vae": same}), plain)
    assert differs(studio.draw(vae=ref("other"), files={"vae": tmp_path / "other"}), plain)
    assert not differs(studio.draw(), plain)
    deep = AutoencoderKL.from_config(
        {
            **own.config,
            "block_out_channels": (16,),
            "down_block_types": ("DownEncoderBlock2D",),
            "up_block_types": ("UpDecoderBlock2D",),
        }
    )
    save_file({name: weights.contiguous() for name, weights in deep.state_dict().items()}, tmp_path / "deep", _groups(own))
    with pytest.raises(InvalidError, match="the file has 4 latent channels of 1 px"):
        studio.draw(vae=ref("deep"), files={"vae": tmp_path / "deep"})


def _groups(vae: Any) -> dict[str, str]:
    return {"tunesmith.vae.norm_num_groups": str(vae.config.norm_num_groups)}


class RefusesSome:
    """Refuses images that are brighter than a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def check(self, image: Image.Image) -> float:
        return 0.9 if pixels(image).mean() > self.limit else 0.1


def test_an_image_that_the_safety_checker_refuses_is_not_encoded(studio: Studio) -> None:
    drawn = [studio.draw(seed=seed) for seed in (5, 6)]
    dark, bright = sorted((5, 6), key=lambda seed: pixels(drawn[seed - 5]).mean())
    checker = RefusesSome(float(np.mean([pixels(image).mean() for image in drawn])))
    careful = Painter(studio.painter.residency, Safety(checker, 0.5))

    kept, removed = studio.results(careful, seeds=[dark, bright])
    unchecked = studio.results(studio.painter, seeds=[bright])[0]

    assert (kept.data is None, kept.safety_score) == (False, 0.1)
    assert (removed.data, removed.safety_score) == (None, 0.9)
    assert (unchecked.data is None, unchecked.safety_score) == (False, None)


def test_loaded_models_are_limited_by_their_bytes(studio: Studio) -> None:
    residency = studio.painter.residency
    residency._max_bytes, before = 1, residency._max_bytes
    studio.draw(Engine.SD15)
    studio.draw(Engine.SDXL)
    assert residency.held == [ref("SDXL").sha256]
    residency._max_bytes = before
    studio.draw(Engine.SD15)
    assert residency.held == [ref("SDXL").sha256, ref("SD15").sha256]


def test_a_small_checkpoint_draws_at_its_native_area_in_the_aspect_asked_for() -> None:
    assert run_size(1024, 1024, 64, 16) == (64, 64)
    assert run_size(1536, 640, 64, 16) == (96, 48)
    assert run_size(768, 1344, 512, 64) == (768, 1344)


class Watcher:
    """Records what it is called with between the steps, and ends the draw after `most` calls."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.calls: list[tuple[int, int, tuple[int, ...]]] = []

    def __call__(self, step: int, steps: int, latents: torch.Tensor) -> None:
        self.calls.append((step, steps, tuple(latents.shape)))
        if len(self.calls) == self.most:
            raise DrawCancelledError


def test_the_hook_is_called_after_each_step_of_a_request(studio: Studio) -> None:
    watcher = Watcher()

    studio.painter.draw(studio.inputs(Engine.SD15, seeds=[5, 6]), Materials(studio.folders[Engine.SD15]), watcher)

    assert [(step, steps) for step, steps, _ in watcher.calls] == [(step, 4) for step in range(1, 5)]
    # Both images are in one batch.
    assert {shape for _, _, shape in watcher.calls} == {(2, 4, PX // 2, PX // 2)}


def test_the_hook_ends_a_draw_between_two_steps(studio: Studio) -> None:
    before, watcher = studio.draw(), Watcher(most=2)

    with pytest.raises(DrawCancelledError):
        studio.painter.draw(studio.inputs(Engine.SD15, seeds=[5]), Materials(studio.folders[Engine.SD15]), watcher)

    assert len(watcher.calls) == 2
    assert not differs(studio.draw(), before)
