"""Model folders as people pack them are taken, and what is missing or wrong in one is named."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.checkpoints import SHIPPED
from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import checkpoint
from shared.formats.checkpoint import CheckpointInfo
from shared.formats.controlnet import ControlNetInfo
from tests.support.upload_world import safetensors

Files = dict[str, bytes]
UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


def folder_of(name: str = "tiny-sd15") -> Files:
    folder = SHIPPED / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def packed(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpacked(path: Path) -> Files:
    target = path.with_suffix(".folder")
    checkpoint.unpack(path, target)
    return {str(file.relative_to(target)): file.read_bytes() for file in sorted(target.rglob("*")) if file.is_file()}


def renamed(files: Files, names: dict[str, str]) -> Files:
    return {names.get(name, name): content for name, content in files.items()}


def test_the_documented_command_packs_a_folder_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "model.tar"
    subprocess.run(["tar", "-cf", path, "-C", SHIPPED / "tiny-sd15", "."], check=True)

    info = checkpoint.read_file(path)

    assert isinstance(info, CheckpointInfo)
    assert (info.engine, info.data_type) == (Engine.SD15, "fp16")
    assert unpacked(path) == folder_of()


def under_a_top(files: Files) -> Files:
    return {f"my model/{name}": content for name, content in files.items()}


def under_two(files: Files) -> Files:
    return {f"./models/my-model/{name}": content for name, content in files.items()}


def with_a_desktops_files(files: Files) -> Files:
    more = [
        ".DS_Store",
        "._unet",
        "unet/._config.json",
        "__MACOSX/._x",
        "Thumbs.db",
        ".gitattributes",
        ".cache/huggingface/x.lock",
    ]
    return files | dict.fromkeys(more, b"\0\1")


def with_a_hubs_files(files: Files) -> Files:
    more = [
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "preview.png",
        "v1-inference.yaml",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
    ]
    pickles = ["unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", "text_encoder/flax_model.msgpack"]
    others = ["safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json"]
    return files | dict.fromkeys([*more, *pickles, *others], b"{}")


def with_every_variant(files: Files) -> Files:
    more = {UNET.replace(".safe", f".{variant}.safe"): b"wrong" for variant in ("fp16", "non_ema", "bf16")}
    return files | more | {TEXT.replace(".safe", ".fp16.safe"): b"wrong"}


def as_fp16_alone(files: Files) -> Files:
    return renamed(files, {name: name.replace(".safe", ".fp16.safe") for name in (UNET, VAE, TEXT)})


def as_one_of_many(files: Files) -> Files:
    return renamed(files, {UNET: UNET.replace(".safe", ".ema.safe")}) | {UNET.replace(".safe", ".non_ema.safe"): b"wrong"}


@pytest.mark.parametrize(
    "change",
    [under_a_top, under_two, with_a_desktops_files, with_a_hubs_files, with_every_variant, as_fp16_alone, as_one_of_many],
)
@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sdxl"])
def test_a_folder_as_people_have_it_is_taken_for_what_it_is(name: str, change: Callable[[Files], Files], tmp_path: Path) -> None:
    files = folder_of(name)
    plain = checkpoint.read_file(packed(tmp_path / "plain.tar", files))
    path = packed(tmp_path / "model.tar", change(files))

    assert checkpoint.read_file(path) == plain
    assert unpacked(path) == files


@pytest.mark.parametrize(
    "index", ["{}.safetensors.index.json", "{}.safetensors.index.fp16.json", "{}.fp16.safetensors.index.json"]
)
def test_weights_in_shards_are_taken_by_their_index(index: str, tmp_path: Path) -> None:
    files = folder_of()
    # The whole file as one of two shards: only the names of the tensors matter here.
    first, second = (UNET.replace(".safetensors", f"{'.fp16' * ('fp16' in index)}-0000{n}-of-00002.safetensors") for n in (1, 2))
    weight_map = {"conv_in.weight": first.removeprefix("unet/"), "more": second.removeprefix("unet/")}
    index_name = index.format(UNET.removesuffix(".safetensors"))
    sharded = renamed(files, {UNET: first}) | {
        second: safetensors({}),
        index_name: json.dumps({"metadata": {}, "weight_map": weight_map}).encode(),
    }
    path = packed(tmp_path / "model.tar", sharded)

    assert checkpoint.read_file(path) == checkpoint.read_file(packed(tmp_path / "plain.tar", files))
    assert set(unpacked(path)) == set(files) - {UNET} | {first, second, f"{UNET}.index.json"}

    del sharded[second]
    with pytest.raises(InvalidError, match=f"the checkpoint has no {second}, which {index_name} names"):
        checkpoint.read_file(packed(tmp_path / "cut.tar", sharded))


def test_a_missing_tokenizer_is_clips_own_and_a_missing_schedule_the_familys(tmp_path: Path) -> None:
    files = folder_of("tiny-sdxl")
    less = {name: content for name, content in files.items() if not name.startswith(("tokenizer", "scheduler"))}
    half = less | {"tokenizer/vocab.json": b"{}"}

    for path in (packed(tmp_path / "model.tar", less), packed(tmp_path / "half.tar", half)):
        assert checkpoint.read_file(path) == checkpoint.read_file(packed(tmp_path / "plain.tar", files))
        found = unpacked(path)
        added = {f"{folder}/{name}" for folder in ("tokenizer", "tokenizer_2") for name in ("vocab.json", "merges.txt")}
        assert added < set(found)
        vocabulary = json.loads(files["text_encoder/config.json"])["vocab_size"]
        assert len(json.loads(found["tokenizer/vocab.json"])) == vocabulary
        assert json.loads(found["tokenizer_2/tokenizer_config.json"])["pad_token"] == "!"
        assert json.loads(found["scheduler/scheduler_config.json"])["beta_schedule"] == "scaled_linear"


def without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: content for name, content in files.items() if name not in names}


def with_content(name: str, content: bytes) -> Callable[[Files], Files]:
    return lambda files: files | {name: content}


def with_config(name: str, **values: object) -> Callable[[Files], Files]:
    return lambda files: files | {name: json.dumps(json.loads(files[name]) | values).encode()}


def pickled(files: Files) -> Files:
    return renamed(files, {UNET: "unet/diffusion_pytorch_model.bin"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without(UNET), f"the checkpoint has no weights {UNET}; download the whole model again"),
        (without(VAE), f"the checkpoint has no weights {VAE}"),
        (without(TEXT), f"the checkpoint has no weights {TEXT}"),
        (pickled, f"unet/diffusion_pytorch_model.bin, a pickle, which is never read, and no {UNET}; convert it to safetensors"),
        (without("unet/config.json"), "the checkpoint has no unet/config.json"),
        (without("text_encoder/config.json"), "the checkpoint has no text_encoder/config.json"),
        (without("model_index.json"), "the checkpoint has no model_index.json"),
        (with_content(UNET, b"version https://git-lfs.github.com/spec/v1\n"), f"{UNET}: the file is not safetensors"),
        (with_content(VAE, folder_of()[VAE][:-10]), f"{VAE}: the file holds .* it is truncated"),
        (with_content(VAE, folder_of()[UNET]), "the checkpoint's vae is not the one that vae/config.json describes"),
        (with_content(TEXT, safetensors({"x": [1]})), "the checkpoint's text_encoder is not the one .* it has no"),
        (with_config("unet/config.json", cross_attention_dim=768), "'down_blocks.1.attentions.0.* has the shape"),
        (with_config("unet/config.json", block_out_channels=[64, 96, 256]), "the checkpoint's unet is not the one"),
        (with_config("unet/config.json", transformer_layers_per_block=[1, 1, 10**6]), "at most 64 is allowed"),
        (with_config("text_encoder/config.json", num_hidden_layers=4), "it has no 'text_model.encoder.layers.3"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(change: Callable[[Files], Files], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=reason):
        checkpoint.read_file(packed(tmp_path / "model.tar", change(folder_of())))


def test_a_folder_with_two_models_is_refused(tmp_path: Path) -> None:
    both = {f"{name}/{path}": content for name in ("one", "two") for path, content in folder_of().items()}
    with pytest.raises(InvalidError, match=r"the checkpoint has no model_index\.json"):
        checkpoint.read_file(packed(tmp_path / "model.tar", both))


def test_two_files_that_become_one_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "model.tar", folder_of())
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("./unet/config.json"))
    with pytest.raises(InvalidError, match="twice"):
        checkpoint.read_file(path)


def test_a_controlnet_is_taken_in_every_form_and_named_where_it_has_no_weights(tmp_path: Path) -> None:
    files = folder_of("tiny-canny-sd15")
    weights = "diffusion_pytorch_model.safetensors"
    plain = checkpoint.read_file(packed(tmp_path / "plain.tar", files))
    assert isinstance(plain, ControlNetInfo)
    for number, change in enumerate((under_a_top, with_a_desktops_files)):
        path = packed(tmp_path / f"{number}.tar", renamed(change(files), {weights: weights.replace(".safe", ".fp16.safe")}))
        assert checkpoint.read_file(path) == plain
        assert set(unpacked(path)) == {"config.json", weights}
    with pytest.raises(InvalidError, match=f"the checkpoint has no weights {weights}"):
        checkpoint.read_file(packed(tmp_path / "less.tar", without(weights)(files)))
