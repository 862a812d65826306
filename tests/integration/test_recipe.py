"""The recipe with the real classes, on random pipelines so small that a step takes milliseconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from safetensors import safe_open

from services.trainer.engine import diffusion, recipe
from services.trainer.engine.base import load_base
from services.trainer.engine.cache import encode_image
from services.trainer.engine.config import Job, Phase, TrainingImage, resolve_parameters
from services.trainer.engine.diffusion import Row, StepLoss
from services.trainer.engine.errors import BadBaseError, BadCheckpointError, BadImageError, NotFiniteError
from services.trainer.engine.export import write_lora
from services.trainer.engine.network import add_adapters
from services.trainer.engine.reports import CheckpointReport, PhaseReport, Report, SampleReport, StepReport, Stopped, Trained
from services.trainer.engine.text import Captions
from shared.engines import Engine
from shared.formats.checkpoint import read_folder
from shared.models import checkpoints, pipelines
from tests.support.tiny_pipelines import NATIVE_SIZE_PX, save_tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

STEPS = 8
BASES = {
    "sd15": (Engine.SD15, "v_prediction"),
    "sdxl": (Engine.SDXL, "epsilon"),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in BASES}
    for name, (engine, prediction_type) in BASES.items():
        save_tiny_pipeline(engine, folders[name], prediction_type=prediction_type)
    return folders


def make_job(bases: dict[str, Path], folder: Path, name: str = "sd15", *, steps: int = STEPS, **chosen: object) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    images: list[TrainingImage] = []
    # Square, tall and wide: three buckets.
    for number, size in enumerate([(40, 40), (32, 48), (64, 36)]):
        file = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        images.append(TrainingImage(file=file, caption=f"a photo of sks1 thing {number}"))
    engine, info = BASES[name][0], read_folder(bases[name])
    small = {"class_images": 4, "class_sampler_steps": 2, "rank": 4, "batch_size": 2, "prior_batch_size": 1}
    return Job(
        tune_id="tune_test",
        engine=engine,
        base_folder=bases[name],
        base_sha256="ab" * 32,
        shape_class=info.shape_class,
        native_size_px=NATIVE_SIZE_PX,
        trigger_word="sks1",
        steps=steps,
        seed=7,
        images=images,
        parameters=resolve_parameters(NATIVE_SIZE_PX, small | chosen),
        checkpoint_every_steps=3,
        output_folder=folder,
        device="cpu",
    )


def run(job: Job, *, stop_after: int | None = None) -> tuple[Trained | Stopped, list[Report]]:
    reports: list[Report] = []

    def stop_requested() -> bool:
        return stop_after is not None and any(isinstance(r, StepReport) and r.step >= stop_after for r in reports)

    return recipe.train(job, reports.append, stop_requested), reports


def trained(job: Job) -> bytes:
    result, _ = run(job)
    assert isinstance(result, Trained)
    return Path(result.file).read_bytes()


@pytest.mark.parametrize(
    "chosen",
    [{}, {"train_text_encoder": True}, {"optimizer": "adafactor"}, {"prior": "class_images"}, {"prior": "none"}],
    ids=str,
)
@pytest.mark.parametrize("name", BASES)
def test_a_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(
    bases: dict[str, Path], tmp_path: Path, name: str, chosen: dict[str, object]
) -> None:
    whole = trained(make_job(bases, tmp_path / "whole", name, **chosen))
    job = make_job(bases, tmp_path / "parts", name, **chosen)
    stopped, reports = run(job, stop_after=1)
    assert isinstance(stopped, Stopped)
    [last] = [report for report in reports if isinstance(report, CheckpointReport)]
    assert trained(job.model_copy(update={"resume_from": Path(last.file)})) == whole


def test_every_periodic_checkpoint_resumes_to_the_same_bytes(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path)
    result, reports = run(job)
    assert isinstance(result, Trained)
    whole = Path(result.file).read_bytes()
    checkpoints_made = [report for report in reports if isinstance(report, CheckpointReport)]
    assert [report.step for report in checkpoints_made] == [3, 6]
    for report in checkpoints_made:
        assert trained(job.model_copy(update={"resume_from": Path(report.file)})) == whole


def test_each_parameter_that_a_tune_may_choose_changes_its_lora(bases: dict[str, Path], tmp_path: Path) -> None:
    choices: list[dict[str, object]] = [
        {"optimizer": "adafactor"},
        {"resolution": 64},
        {"rank": 2},
        {"alpha": 1.0},
        {"learning_rate": 1e-2},
        {"batch_size": 1},
        {"train_text_encoder": False},
        {"text_encoder_learning_rate": 1e-2},
        {"prior": "none"},
        {"prior": "class_images"},
        {"clip_skip": 2},
    ]
    usual = trained(make_job(bases, tmp_path / "usual", steps=2))

    loras = [trained(make_job(bases, tmp_path / str(number), steps=2, **chosen)) for number, chosen in enumerate(choices)]

    assert [chosen for chosen, lora in zip(choices, loras, strict=True) if lora == usual] == []


def test_validation_images_show_the_training_and_do_not_disturb_it(bases: dict[str, Path], tmp_path: Path) -> None:
    prompts = {"validation_prompts": ["a photo of sks1 thing", "a photo of a thing"], "sample_steps": 2, "learning_rate": 0.02}
    plain = trained(make_job(bases, tmp_path / "plain", learning_rate=0.02))
    job = make_job(bases, tmp_path / "sampled", **prompts)

    result, reports = run(job)

    assert isinstance(result, Trained)
    assert Path(result.file).read_bytes() == plain
    samples = {report.step: report for report in reports if isinstance(report, SampleReport)}
    assert list(samples) == [3, 6, STEPS]
    assert samples[3].seeds == samples[6].seeds
    images = {step: [Path(file).read_bytes() for file in report.files] for step, report in samples.items()}
    assert len({image for both in images.values() for image in both}) == 6
    with Image.open(samples[3].files[0]) as image:
        assert (image.format, image.size) == ("PNG", (NATIVE_SIZE_PX, NATIVE_SIZE_PX))

    # A resumed run generates the same images.
    [third] = [report for report in reports if isinstance(report, CheckpointReport) and report.step == 3]
    _, resumed = run(job.model_copy(update={"resume_from": Path(third.file)}))
    repeated = {report.step: report for report in resumed if isinstance(report, SampleReport)}
    assert {step: [Path(file).read_bytes() for file in report.files] for step, report in repeated.items()} == {
        step: images[step] for step in (6, STEPS)
    }


def test_a_stop_while_images_are_generated_ends_the_run_at_once_with_its_state(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path, validation_prompts=["sks1"], sample_steps=2)
    reports: list[Report] = []

    def stop_requested() -> bool:
        return PhaseReport(phase=Phase.SAMPLE) in reports

    result = recipe.train(job, reports.append, stop_requested)

    assert result == Stopped(steps_run=3)
    assert [report.step for report in reports if isinstance(report, CheckpointReport)] == [3]
    assert [report for report in reports if isinstance(report, SampleReport)] == []


def test_validation_images_are_generated_a_bounded_number_of_times(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path, steps=1000, validation_prompts=["sks1"])
    rounds = [step for step in range(1, job.steps + 1) if job.samples_at(step)]
    assert len(rounds) <= job.sample_rounds
    assert rounds[-1] == job.steps
    assert all(step % job.checkpoint_every_steps == 0 for step in rounds[:-1])


def test_every_step_reports_its_loss(bases: dict[str, Path], tmp_path: Path) -> None:
    _, reports = run(make_job(bases, tmp_path))
    steps = [report for report in reports if isinstance(report, StepReport)]
    assert sum(len(report.losses) for report in steps) == STEPS
    for report in steps:
        assert report.loss == pytest.approx(sum(report.losses) / len(report.losses))


def test_the_seed_decides_the_outcome(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path, steps=2)
    assert trained(job) != trained(job.model_copy(update={"seed": 8}))


@pytest.mark.parametrize("name", BASES)
def test_a_loaded_lora_changes_what_is_generated_and_an_unloaded_one_does_not(
    bases: dict[str, Path], tmp_path: Path, name: str
) -> None:
    trained(make_job(bases, tmp_path, name, learning_rate=0.02))
    loaded = checkpoints.load(bases[name], device=torch.device("cpu"), dtype=torch.float32)
    pipeline = pipelines.build(loaded, DDIMScheduler.from_pretrained(bases[name], subfolder="scheduler"))

    def generate() -> np.ndarray:
        result = pipeline(
            "a photo of sks1 thing",
            height=NATIVE_SIZE_PX,
            width=NATIVE_SIZE_PX,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        )
        return result.images

    before = generate()
    pipeline.load_lora_weights(tmp_path, weight_name=recipe.LORA_FILE, adapter_name="tuned")
    after = generate()
    assert not np.array_equal(before, after)
    assert np.array_equal(after, generate())
    pipeline.set_adapters("tuned", 0.0)
    assert np.array_equal(before, generate())
    pipeline.unload_lora_weights()
    assert np.array_equal(before, generate())


@pytest.mark.parametrize("name", BASES)
def test_a_file_loads_as_the_adapter_that_was_written(bases: dict[str, Path], tmp_path: Path, name: str) -> None:
    job = make_job(bases, tmp_path, name, text_encoder_learning_rate=1e-3)
    trained_base, fresh_base = (load_base(job, torch.device("cpu")) for _ in range(2))
    modules, weights = add_adapters(trained_base, job.parameters, 1)
    for number, weight in enumerate(weights.values()):
        values = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.1
        weight.data.copy_(values.half().float())
    write_lora(tmp_path / "lora.safetensors", modules, {})
    fresh_base.pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    images = [
        base.pipeline(
            "sks1",
            height=NATIVE_SIZE_PX,
            width=NATIVE_SIZE_PX,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for base in (trained_base, fresh_base)
    ]
    assert np.array_equal(*images)


def test_the_files_metadata_has_what_the_lora_fits_and_alpha(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path, steps=2, alpha=2.0, text_encoder_learning_rate=1e-3)
    trained(job)
    with safe_open(tmp_path / recipe.LORA_FILE, framework="pt") as file:
        metadata, keys = file.metadata(), list(file.keys())
    assert {name: metadata[name] for name in ("engine", "shape_class", "trigger_word", "rank", "alpha", "steps")} == {
        "engine": str(Engine.SD15),
        "shape_class": job.shape_class,
        "trigger_word": "sks1",
        "rank": "4",
        "alpha": "2",
        "steps": "2",
    }
    assert metadata["base_sha256"] == job.base_sha256
    adapters = json.loads(metadata["lora_adapter_metadata"])
    assert (adapters["unet.lora_alpha"], adapters["text_encoder.lora_alpha"]) == (2.0, 2.0)
    assert any(key.startswith("text_encoder.text_model.encoder.layers.") for key in keys)
    assert all(key.startswith(("unet.", "text_encoder.text_model.")) for key in keys)


def test_training_learns(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path, steps=60, learning_rate=0.02, prior="none", batch_size=4, min_snr_gamma=None)
    base = load_base(job, torch.device("cpu"))
    images = [encode_image(base, job, image) for image in job.images]
    captions = Captions(base, {image.caption for image in images} | {""}, fixed=True)

    def loss() -> float:
        loss_of = StepLoss(base, captions, captions, [], job.parameters, rows_at_once=3)
        noise = torch.Generator().manual_seed(0)
        rows = [Row(image, 1.0) for image in images]
        with torch.no_grad():
            return sum(part.item() for _ in range(20) for part in loss_of(rows, noise))

    untrained = loss()
    trained(job)
    base.pipeline.load_lora_weights(tmp_path, weight_name=recipe.LORA_FILE)
    assert loss() < 0.97 * untrained


def test_phases_come_in_order(bases: dict[str, Path], tmp_path: Path) -> None:
    _, reports = run(make_job(bases, tmp_path, steps=1))
    phases = list(dict.fromkeys(report.phase for report in reports if isinstance(report, PhaseReport)))
    assert phases == [Phase.LOAD, Phase.CACHE, Phase.PRIOR, Phase.TRAIN, Phase.FIRST_STEP, Phase.SAVE]


def test_an_image_that_cannot_be_read_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path)
    job.images[1].file.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(BadImageError, match="training image 1"):
        run(job)


def test_a_base_of_another_shape_is_refused_with_both_shapes(bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(bases, tmp_path).model_copy(update={"shape_class": "sd15-00000000"})
    with pytest.raises(BadBaseError, match=r"sd15-(?!00000000)\w+.*sd15-00000000"):
        run(job)


def test_a_loss_that_is_not_finite_ends_the_run(bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "min_snr_weights", lambda *_args: torch.full((1,), float("nan")))
    with pytest.raises(NotFiniteError, match="learning_rate below"):
        run(make_job(bases, tmp_path))


def test_a_damaged_checkpoint_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "checkpoint-3.safetensors"
    damaged.write_bytes(b"not a checkpoint")
    with pytest.raises(BadCheckpointError, match="start a new tune"):
        run(make_job(bases, tmp_path).model_copy(update={"resume_from": damaged}))
