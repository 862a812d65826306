"""A single-file checkpoint loads as its folder does, for both engines, and its parts can be replaced."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from deploy.tiny import single_file
from services.inference.worker.vaes import load_vae
from shared.engines import FAMILIES, Engine
from shared.errors import InvalidError
from shared.formats import checkpoint, ldm_layout, ldm_shapes
from shared.formats.clip import tokenizer as clip_tokenizer
from shared.formats.safetensors import read_header
from shared.models import pipelines, samplers
from shared.models.checkpoints import Components, load
from tests.support.tiny_pipelines import save_tiny_pipeline

CPU = torch.device("cpu")
TINY = Path(__file__).parents[2] / "deploy" / "checkpoints" / "tiny-sd15"
PROMPT = "a photo of a red star on snow"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Engine, Path]:
    folders = {engine: tmp_path_factory.mktemp("folder") / engine.name for engine in FAMILIES}
    for engine, folder in folders.items():
        save_tiny_pipeline(engine, folder)
    return folders


def _load(folder: Path) -> Components:
    return load(folder, device=CPU, dtype=torch.float32)


def _unpacked(file: Path) -> Path:
    folder = file.with_suffix(".folder")
    checkpoint.unpack(file, folder)
    return folder


def _draw(components: Components) -> torch.Tensor:
    pipeline = pipelines.build(components, samplers.make("DDIM", components.scheduler_folder))
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    generator = torch.Generator().manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipeline(PROMPT, width=side, height=side, num_inference_steps=2, generator=generator, output_type="pt").images


def _assert_same(one: Components, other: Components) -> None:
    assert one.info.model_dump(exclude={"data_type"}) == other.info.model_dump(exclude={"data_type"})
    pairs = zip((one.unet, one.vae, *one.text_encoders), (other.unet, other.vae, *other.text_encoders), strict=True)
    for mine, theirs in pairs:
        weights = theirs.state_dict()
        assert mine.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in mine.state_dict().items())
    assert torch.equal(_draw(one), _draw(other))


def test_the_tokenizer_of_the_small_checkpoint_follows_from_its_vocabulary(tmp_path: Path) -> None:
    clip_tokenizer.write(tmp_path / "tokenizer", vocabulary=3514, positions=32)
    made = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    shipped = CLIPTokenizer.from_pretrained(TINY / "tokenizer", local_files_only=True)

    for text in (PROMPT, "It's 5 o'clock, café, 日本 🙂 supercalifragilistic"):
        assert made(text).input_ids == shipped(text).input_ids
    assert made.get_vocab() == shipped.get_vocab()
    assert made.model_max_length == shipped.model_max_length


def test_the_full_tokenizer_is_clips(tmp_path: Path) -> None:
    clip_tokenizer.write(tmp_path / "tokenizer", vocabulary=clip_tokenizer.FULL, positions=77)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)

    assert tokenizer("a photo of a sks dog").input_ids == [49406, 320, 1125, 539, 320, 48136, 1929, 49407]


@pytest.mark.parametrize("engine", FAMILIES)
def test_a_checkpoint_is_the_same_from_one_file(tmp_path: Path, folders: dict[Engine, Path], engine: Engine) -> None:
    file = tmp_path / "model.safetensors"
    single_file.export_folder(folders[engine], file)

    info = checkpoint.read_file(file)
    assert (info.engine, info.native_size_px, info.data_type) == (engine, 32, "fp16")
    assert info.shape_class == checkpoint.read_folder(folders[engine]).shape_class
    _assert_same(_load(_unpacked(file)), _half(folders[engine]))


def _half(folder: Path) -> Components:
    """Return the folder's parts, rounded to half precision as in the file."""
    half = load(folder, device=CPU, dtype=torch.float16)
    for part in (half.unet, half.vae, *half.text_encoders):
        part.float()
    return half


def test_the_small_checkpoint_is_the_same_from_one_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    single_file.export_folder(TINY, file)

    info = checkpoint.read_file(file)
    assert (info.native_size_px, info.shape_class) == (64, checkpoint.read_folder(TINY).shape_class)
    _assert_same(_load(_unpacked(file)), _load(TINY))


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, folders: dict[Engine, Path]) -> None:
    for name in ("one", "two"):
        single_file.export_folder(folders[Engine.SDXL], tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_without_metadata_predicts_epsilon(tmp_path: Path, folders: dict[Engine, Path]) -> None:
    file = tmp_path / "model.safetensors"
    single_file.export_folder(folders[Engine.SD15], file)
    told = read_header(file).metadata
    assert told["modelspec.prediction_type"] == "epsilon"
    del told["modelspec.prediction_type"]
    save_file(load_file(file), file, told)
    assert file.stat().st_size <= 2 * 2**20

    silent = _unpacked(file)

    assert json.loads((silent / "scheduler" / "scheduler_config.json").read_bytes())["prediction_type"] == "epsilon"
    assert torch.equal(_draw(_load(silent)), _draw(_half(folders[Engine.SD15])))


@pytest.mark.parametrize("original", [False, True])
def test_a_vae_replaces_the_checkpoints_own(tmp_path: Path, folders: dict[Engine, Path], original: bool) -> None:
    base = _load(folders[Engine.SD15])
    save_tiny_pipeline(Engine.SD15, tmp_path / "other", seed=7)
    other = AutoencoderKL.from_pretrained(tmp_path / "other", subfolder="vae")
    weights = single_file.vae_tensors(other) if original else other.state_dict()
    save_file(
        {k: v.contiguous() for k, v in weights.items()}, tmp_path / "vae.safetensors", {"tunesmith.vae.norm_num_groups": "8"}
    )
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    vae = load_vae(tmp_path / "vae.safetensors", base.vae, device=CPU, dtype=torch.float32)

    with torch.no_grad():
        assert torch.allclose(vae.decode(latents).sample, other.decode(latents).sample, atol=1e-5)
        assert not torch.allclose(vae.decode(latents).sample, base.vae.decode(latents).sample, atol=1e-2)
    assert vae.config.scaling_factor == base.vae.config.scaling_factor


def test_a_vae_of_another_factor_is_refused(folders: dict[Engine, Path]) -> None:
    with pytest.raises(InvalidError, match=r"4 latent channels of 4 px a side, .* needs 4 channels of 2 px"):
        load_vae(
            TINY / "vae" / "diffusion_pytorch_model.safetensors", _load(folders[Engine.SD15]).vae, device=CPU, dtype=torch.float32
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.diffusion_model.out.2.bias": None}, "UNet differs from Stable Diffusion's releases: it has no 'out.2.bias'"),
        ({"first_stage_model.decoder.conv_in.weight": None}, "the checkpoint's VAE: the VAE has 0 latent channels"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)}, "takes 9 channels, as inpainting models do"),
        ({"cond_stage_model.transformer.text_model.final_layer_norm.bias": None}, "text encoder differs from"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused(
    tmp_path: Path, folders: dict[Engine, Path], change: dict[str, torch.Tensor | None], reason: str
) -> None:
    file = tmp_path / "model.safetensors"
    single_file.export_folder(folders[Engine.SD15], file)
    weights = load_file(file) | {name: tensor for name, tensor in change.items() if tensor is not None}
    save_file({name: tensor for name, tensor in weights.items() if change.get(name, tensor) is not None}, file)

    with pytest.raises(InvalidError, match=reason):
        checkpoint.read_file(file)


def test_the_computed_layout_is_that_of_the_file(tmp_path: Path, folders: dict[Engine, Path]) -> None:
    file = tmp_path / "model.safetensors"
    single_file.export_folder(folders[Engine.SDXL], file)
    header = read_header(file)

    wanted = ldm_layout.unet(ldm_shapes.read(header).unet)

    assert wanted == {
        name.removeprefix(ldm_shapes.UNET): tuple(tensor.shape)
        for name, tensor in header.tensors.items()
        if name.startswith(ldm_shapes.UNET)
    }
