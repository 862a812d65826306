"""SDXL's refiner, with one text encoder and an aesthetic score, finishes an image as diffusers does, from either format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline

from deploy.tiny import single_file
from services.inference.inputs import Refine
from shared.engines import Engine
from shared.formats import checkpoint
from shared.models.checkpoints import load
from tests.support.drawing_world import PROMPT, PX, Studio, make_studio, pixels, ref, set_ddim
from tests.support.tiny_pipelines import save_tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
STEPS, SHARE = 10, 0.6


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refiner") / "folder"
    save_tiny_pipeline(Engine.SDXL_REFINER, folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return next(make_studio(tmp_path_factory.mktemp("studio")))


def test_a_refiner_finishes_the_bases_latents_as_diffusers_does(studio: Studio, refiner: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(studio.folders[Engine.SDXL])
    finish = StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner)
    for pipeline in (base, finish):
        set_ddim(pipeline)
    generator = torch.Generator().manual_seed(5)
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "generator": generator}
    begun = base(PROMPT, width=PX, height=PX, denoising_end=SHARE, output_type="latent", **arguments).images
    [wanted] = finish(PROMPT, image=begun, denoising_start=SHARE, **arguments).images

    refine = Refine(model=ref("refiner"), high_noise_frac=SHARE)
    drawn = studio.draw(Engine.SDXL, seed=5, steps=STEPS, refine=refine, files={"refiner": refiner})

    assert np.abs(pixels(drawn) - pixels(wanted)).max() <= 1


def test_a_refiner_is_the_same_from_one_file(refiner: Path, tmp_path: Path) -> None:
    file, unpacked = tmp_path / "refiner.safetensors", tmp_path / "unpacked"
    single_file.export_folder(refiner, file)
    assert file.stat().st_size <= 2 * 2**20
    checkpoint.unpack(file, unpacked)

    infos = [checkpoint.read_file(file), checkpoint.read_folder(refiner)]
    assert infos[0].model_dump(exclude={"data_type"}) == infos[1].model_dump(exclude={"data_type"})
    assert infos[0].engine is Engine.SDXL_REFINER
    one, other = (load(folder, device=torch.device("cpu"), dtype=torch.float16) for folder in (unpacked, refiner))
    for mine, theirs in zip((one.unet, one.vae, *one.text_encoders), (other.unet, other.vae, *other.text_encoders), strict=True):
        weights = theirs.state_dict()
        assert mine.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in mine.state_dict().items())
    assert one.zeros_for_empty_prompt is other.zeros_for_empty_prompt is False
