"""Model repositories: which of their files are the asset, and how they are fetched."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from services.upload.imports import hub
from services.upload.imports.hub import HubRepo
from services.upload.sources import check_repo
from shared.errors import InvalidError


@pytest.mark.parametrize(
    ("asset_type", "names", "chosen"),
    [
        ("lora", ["README.md", "style.safetensors"], "style.safetensors"),
        ("lora", ["a.safetensors", "pytorch_lora_weights.safetensors"], "pytorch_lora_weights.safetensors"),
        ("vae", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "vae.safetensors"], "diffusion_pytorch_model.safetensors"),
        ("vae", ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"], "vae/diffusion_pytorch_model.safetensors"),
        ("textual_inversion", ["learned_embeds.bin", "learned_embeds.safetensors"], "learned_embeds.safetensors"),
        ("checkpoint", ["model.safetensors", "old/model.safetensors"], "model.safetensors"),
    ],
)  # fmt: skip
def test_the_file_of_an_asset_is_found_by_its_usual_name_or_as_the_only_one(
    asset_type: str, names: list[str], chosen: str
) -> None:
    assert HubRepo("https://hub.test/a/b/resolve/1", names).one_file(asset_type) == chosen


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["b.safetensors", "a.safetensors"], "several safetensors files .a.safetensors, b.safetensors.; give the URL"),
        (["weights.ckpt", "deep/a.safetensors"], "no safetensors file at its top level"),
    ],
)
def test_a_repository_without_a_clear_choice_is_refused(names: list[str], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        HubRepo("https://hub.test/a/b/resolve/1", names).one_file("lora")


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
}
NAMES = [
    "model_index.json",
    "v1-5-pruned.safetensors",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/deeper/config.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_a_checkpoint_has_the_parts_that_its_index_names_in_half_precision_if_available() -> None:
    files = HubRepo("https://hub.test/a/b/resolve/1", NAMES).folder(INDEX)

    assert files == {
        "model_index.json": "model_index.json",
        "scheduler/scheduler_config.json": "scheduler/scheduler_config.json",
        "text_encoder/config.json": "text_encoder/config.json",
        "text_encoder/model.safetensors": "text_encoder/model.safetensors",
        "tokenizer/merges.txt": "tokenizer/merges.txt",
        "tokenizer/vocab.json": "tokenizer/vocab.json",
        "unet/config.json": "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors": "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json": "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
    }


def test_a_part_without_safetensors_is_refused() -> None:
    names = [name for name in NAMES if not name.startswith("vae/diffusion")]

    with pytest.raises(InvalidError, match="the repository's vae has no safetensors file"):
        HubRepo("https://hub.test/a/b/resolve/1", names).folder(INDEX)


class Hub:
    """A fetcher with a single repository, in which every file has ten bytes."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    async def read_json(self, url: str, **_: Any) -> Any:
        siblings = [{"rfilename": name} for name in NAMES]
        return INDEX if url.endswith("model_index.json") else {"sha": "c0ffee", "siblings": siblings}

    async def fetch(self, url: str, path: Path, *, max_bytes: int, token: str | None) -> int:
        if max_bytes < 10:
            msg = "too large"
            raise InvalidError(msg)
        self.fetched.append(url)
        content = json.dumps(INDEX) if path.name == "model_index.json" else "x" * 10
        path.write_text(content)
        return 10


async def test_a_checkpoint_is_packed_into_one_file(tmp_path: Path) -> None:
    fetcher = Hub()

    path, size = await hub.fetch(fetcher, "https://hub.test/", "a/b", "checkpoint", tmp_path, max_bytes=1000, token=None)  # pyright: ignore[reportArgumentType]

    with tarfile.open(path) as archive:
        assert sorted(archive.getnames()) == sorted(HubRepo("", NAMES).folder(INDEX))
    assert size == path.stat().st_size
    assert "https://hub.test/a/b/resolve/c0ffee/unet/diffusion_pytorch_model.fp16.safetensors" in fetcher.fetched


async def test_the_limit_applies_to_the_sum_of_all_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="too large"):
        await hub.fetch(Hub(), "https://hub.test", "a/b", "checkpoint", tmp_path, max_bytes=95, token=None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("repo", ["a", "a/b/c", "../b", "a/..b?x=1", "a/b#c", "https://hub.test/a/b", "a/ b"])
def test_a_malformed_repository_name_is_refused(repo: str) -> None:
    with pytest.raises(InvalidError, match=r"hf_repo: .* is not owner/name"):
        check_repo(repo, "lora")


def test_an_image_cannot_be_imported_from_a_model_repository() -> None:
    with pytest.raises(InvalidError, match="an asset of type file is an image"):
        check_repo("a/b", "file")
