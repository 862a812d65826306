"""Captions in training: whole, as generation reads them, and never without a class prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image

from services.inference.worker.text import Prompts
from services.inference.worker.text import encode as encode_for_drawing
from services.trainer.engine import recipe
from services.trainer.engine.base import Base
from services.trainer.engine.config import Job, TrainingImage, resolve_parameters
from services.trainer.engine.images import Sizes
from services.trainer.engine.reports import Trained
from services.trainer.engine.text import Captions, added_conditions, encode, pipeline_arguments
from shared.engines import Engine
from shared.formats.checkpoint import read_folder
from shared.formats.clip.emphasis import parse
from shared.models import checkpoints, pipelines
from tests.support.tiny_pipelines import NATIVE_SIZE_PX, save_tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
ENGINES = pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL], ids=["sd", "sdxl"])
SIZES = Sizes((32, 32), (0, 0), (32, 32))
CPU = torch.device("cpu")
LONG = "a drawing of the light and the colours of things around it, again and again, "


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Engine, Path]:
    made = {engine: tmp_path_factory.mktemp(engine.name) for engine in (Engine.SD15, Engine.SDXL)}
    for engine, folder in made.items():
        save_tiny_pipeline(engine, folder)
    return made


def load(folder: Path, engine: Engine) -> tuple[checkpoints.Components, Base]:
    components = checkpoints.load(folder, device=CPU, dtype=torch.float32)
    schedule = DDPMScheduler.from_pretrained(components.scheduler_folder, local_files_only=True)
    return components, Base(engine, pipelines.build(components, schedule), CPU, torch.float32, schedule)


def make_job(folders: dict[Engine, Path], folder: Path, captions: list[str], **chosen: Any) -> Job:
    folder.mkdir(exist_ok=True)
    images: list[TrainingImage] = []
    for number, caption in enumerate(captions):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append(TrainingImage(file=folder / f"{number}.png", caption=caption))
    small = {"class_images": 4, "class_sampler_steps": 2, "rank": 4, "batch_size": 2, "prior_batch_size": 1}
    return Job(
        tune_id="tune_test",
        engine=Engine.SDXL,
        base_folder=folders[Engine.SDXL],
        base_sha256="ab" * 32,
        shape_class=read_folder(folders[Engine.SDXL]).shape_class,
        native_size_px=NATIVE_SIZE_PX,
        trigger_word="sks1",
        steps=2,
        seed=7,
        images=images,
        parameters=resolve_parameters(NATIVE_SIZE_PX, small | chosen),
        checkpoint_every_steps=10,
        output_folder=folder,
        device="cpu",
    )


@ENGINES
def test_a_caption_is_read_as_generation_reads_it(folders: dict[Engine, Path], engine: Engine) -> None:
    components, base = load(folders[engine], engine)
    for caption in ("a red cat", LONG * 3 + "sks1 star", ""):
        with torch.no_grad():
            ours = encode(base, [caption])
            drawn = encode_for_drawing(components, Prompts(caption, "x"), clip_skip=None, vectors={}, zero_empty=True)
        if engine is Engine.SDXL and not caption:
            drawn = {key: torch.zeros_like(value) for key, value in drawn.items()}
        torch.testing.assert_close(ours.hidden, drawn["prompt_embeds"])
        if ours.pooled is not None:
            torch.testing.assert_close(ours.pooled, drawn["pooled_prompt_embeds"])


@ENGINES
def test_a_validation_prompt_is_read_as_generation_reads_it(folders: dict[Engine, Path], engine: Engine) -> None:
    components, base = load(folders[engine], engine)
    prompt = LONG + "(sks1:1.4) BREAK [star]"
    with torch.no_grad():
        drawn = encode_for_drawing(components, Prompts(prompt, ""), clip_skip=None, vectors={}, zero_empty=True)

    ours = pipeline_arguments(base, [prompt], parse)

    assert ours.keys() == drawn.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, drawn[key])


@ENGINES
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "trained"])
def test_a_short_caption_beside_a_long_one_is_read_as_alone(folders: dict[Engine, Path], engine: Engine, *, fixed: bool) -> None:
    _, base = load(folders[engine], engine)
    texts = ["a cat", LONG * 2]
    captions = Captions(base, set(texts), fixed=fixed)
    noisy, times = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])

    def predicted(number: slice) -> torch.Tensor:
        read = captions(texts[number])
        added = added_conditions(base, read, [SIZES] * len(read.hidden))
        with torch.no_grad():
            return base.pipeline.unet(
                noisy[number], times[number], read.hidden, encoder_attention_mask=read.mask, added_cond_kwargs=added
            ).sample

    torch.testing.assert_close(predicted(slice(0, 2))[:1], predicted(slice(0, 1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rate", [0.0, 1e-3], ids=["text fixed", "text trained"])
def test_the_end_of_a_long_caption_is_trained(folders: dict[Engine, Path], tmp_path: Path, rate: float) -> None:
    def lora(name: str, end: str) -> bytes:
        job = make_job(folders, tmp_path / name, ["sks1", LONG * 2 + end], text_encoder_learning_rate=rate)
        result = recipe.train(job, lambda _report: None, lambda: False)
        assert isinstance(result, Trained)
        return Path(result.file).read_bytes()

    assert lora("one", "sks1 star on grass") != lora("two", "sks1 lighthouse at night")


def test_without_captions_the_class_images_show_a_photo(
    folders: dict[Engine, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    generate = recipe.generate_class_latents

    def watched(base: Base, wanted: list[tuple[str, tuple[int, int]]], *rest: Any) -> list[torch.Tensor]:
        prompts.extend(prompt for prompt, _ in wanted)
        return generate(base, wanted, *rest)

    monkeypatch.setattr(recipe, "generate_class_latents", watched)
    recipe.train(
        make_job(folders, tmp_path / "tune", ["sks1", "a photo of a SKS1 dog", "a cat"], prior="class_images"),
        lambda _report: None,
        lambda: False,
    )

    assert prompts == ["a photo", "a photo of a dog", "a photo", "a photo"]
