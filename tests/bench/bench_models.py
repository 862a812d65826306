"""What the recipe, the residency and the image service cost, compared with diffusers and peft called directly, on tiny-sd15."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig

from deploy.local import checkpoints as shipped
from services.inference.app import create_app as create_api
from services.inference.settings import InferenceSettings
from services.inference.worker.app import create_app as create_worker
from services.inference.worker.materials import LoraFile
from services.inference.worker.residency import Residency
from services.inference.worker.settings import WorkerSettings
from services.trainer.engine import recipe
from services.trainer.engine.config import Job, TrainingImage, resolve_parameters
from services.trainer.engine.reports import Report as TrainingReport
from services.trainer.engine.reports import StepReport
from services.upload import public_assets
from shared.accounts import accounts
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.engines import Engine
from shared.formats import checkpoint
from shared.messaging.topics import ensure_topics
from shared.models import samplers
from shared.settings import ServiceSettings
from tests.bench.conftest import Report
from tests.support.waiting import eventually
from tunesmith.demo import SAMPLES

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
BASE = shipped.SHIPPED / "tiny-sd15"
STEPS, BATCH, RANK, SIZE_PX = 20, 4, 8, 64
DRAW_STEPS = 10
IMAGES = sorted(SAMPLES.glob("star-*.png"))
_TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]


def bare_pipeline() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(BASE, local_files_only=True, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(autouse=True)
def no_determinism_left() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(mode=False)


def job(folder: Path, *, steps: int) -> Job:
    chosen = {"prior": "none", "rank": RANK, "batch_size": BATCH, "caption_dropout": 0.0}
    return Job(
        tune_id="tune_bench",
        engine=Engine.SD15,
        base_folder=BASE,
        base_sha256="ab" * 32,
        shape_class=checkpoint.read_folder(BASE).shape_class,
        native_size_px=SIZE_PX,
        trigger_word="sks1",
        steps=steps,
        seed=7,
        images=[TrainingImage(file=file, caption="a photo of a sks1 star") for file in IMAGES],
        parameters=resolve_parameters(SIZE_PX, chosen),
        checkpoint_every_steps=10_000,
        output_folder=folder,
        device="cpu",
    )


def lora(folder: Path, name: str) -> Path:
    folder = folder / name
    folder.mkdir()
    return Path(recipe.train(job(folder, steps=1), lambda _report: None, lambda: False).file)


async def test_a_training_step_of_the_recipe_against_a_bare_one(report: Report, tmp_path: Path) -> None:
    pipeline = bare_pipeline()
    noise = DDPMScheduler.from_pretrained(BASE / "scheduler", local_files_only=True)
    pipeline.unet.requires_grad_(requires_grad=False)
    pipeline.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=_TARGETS))
    weights = [weight for weight in pipeline.unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    tokens = pipeline.tokenizer(
        ["a photo of a sks1 star"] * BATCH, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    hidden = pipeline.text_encoder(tokens)[0].detach()
    side = SIZE_PX // pipeline.vae_scale_factor
    latents = torch.randn(BATCH, pipeline.unet.config.in_channels, side, side)

    async def bare() -> int:
        for _ in range(STEPS):
            added, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (BATCH,))
            predicted = pipeline.unet(noise.add_noise(latents, added, timesteps), timesteps, hidden).sample
            torch.nn.functional.mse_loss(predicted, added).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return STEPS

    folder = tmp_path / "ours"
    folder.mkdir()

    def steps() -> tuple[int, float]:
        # From the report of the first step to that of the last, which leaves out loading, encoding and saving.
        at: dict[int, float] = {}

        def hear(said: TrainingReport) -> None:
            if isinstance(said, StepReport):
                at[said.step] = time.perf_counter()

        recipe.train(job(folder, steps=STEPS), hear, lambda: False)
        return STEPS - 1, at[STEPS] - at[1]

    async def ours() -> tuple[int, float]:
        return await asyncio.to_thread(steps)

    await report.compare(f"LoRA steps of the recipe, batch {BATCH}", ours, "bare diffusers and peft steps", bare)


async def test_a_resident_lora_against_one_that_is_loaded(report: Report, tmp_path: Path) -> None:
    files = [LoraFile(name, name * 64, lora(tmp_path, name), 1.0) for name in ("a", "b")]
    resident = Residency(torch.device("cpu"), max_bytes=2**30)
    fleeting = Residency(torch.device("cpu"), max_bytes=0)
    switches = 6

    def switch(residency: Residency) -> Callable[[], object]:
        async def run() -> int:
            for number in range(switches):
                residency.checkpoint("base", BASE, [files[number % 2]])
            return switches

        return run

    await report.compare("switches between two resident LoRAs", switch(resident), "loads of a LoRA", switch(fleeting))


@pytest.fixture
async def served(
    make_settings: Callable[..., ServiceSettings], database_url: str, blobs: Blobs, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """The image API and a real worker, over the real broker and store."""
    database, settings = Database(database_url), make_settings(InferenceSettings)
    await ensure_topics(settings)
    packed = tmp_path / "base.tar"
    checkpoint.pack(BASE, packed)
    async with database.begin() as session:
        await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
        account_id = await accounts.create_account(session, "bench")
        _, secret = await accounts.create_key(session, account_id, name="key", scopes=accounts.USER_SCOPES)
    await public_assets.register_checkpoint(database, blobs, packed, name="tiny-sd15")
    api, worker = create_api(settings), create_worker(make_settings(WorkerSettings, device="cpu"))
    async with api.router.lifespan_context(api), worker.router.lifespan_context(worker):
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(api),
            base_url="http://api.bench",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=300,
        )
        async with client:
            yield client
    await database.close()


async def test_an_image_through_the_service_against_a_bare_pipeline(report: Report, served: httpx.AsyncClient) -> None:
    body = {
        "prompt": "a star",
        "checkpoint": "octoai:tiny-sd15",
        "steps": DRAW_STEPS,
        "seed": 1,
        "width": 512,
        "height": 512,
        "image_encoding": "png",
        "cfg_scale": 5.0,
    }

    async def ours() -> int:
        answer = await served.post("/generate/sd", json=body)
        assert answer.is_success, answer.text
        return 1

    async def ready() -> bool | None:
        return True if (await served.post("/generate/sd", json=body)).is_success else None

    await eventually(ready, 300)
    pipeline = bare_pipeline()
    pipeline.scheduler = samplers.make("DDIM", BASE / "scheduler")

    def draw() -> int:
        options = {"num_inference_steps": DRAW_STEPS, "guidance_scale": 5.0, "width": SIZE_PX, "height": SIZE_PX}
        with torch.inference_mode():
            image = pipeline("a star", generator=torch.Generator("cpu").manual_seed(1), **options).images[0]
        image.resize((512, 512)).save(io.BytesIO(), "PNG")
        return 1

    async def bare() -> int:
        return await asyncio.to_thread(draw)

    await report.compare(f"images of {DRAW_STEPS} steps through the whole service", ours, "bare pipeline calls", bare)
