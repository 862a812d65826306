"""Checkpoint files: how a model travels as one object, read without torch.

A checkpoint has one key, one SHA-256 and one presigned URL. It is a folder in diffusers' layout (`model_index.json`, `unet/`,
`vae/`, `text_encoder/`, ...), packed into one uncompressed tar, of JSON, text and safetensors files only; or one safetensors
file in the layout of Stable Diffusion's own releases. A ControlNet is a checkpoint, too: a packed folder of its own kind
(`shared/formats/controlnet.py`). Nothing in a checkpoint is ever unpickled or run.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import controlnet, single_file
from shared.formats.controlnet import ControlNetInfo

SUFFIXES = frozenset({".json", ".txt", ".safetensors"})
MAX_MEMBERS = 200
MAX_JSON_BYTES = 8 * 2**20
_PIPELINES = {
    "StableDiffusionPipeline": Engine.SD15,
    "StableDiffusionXLPipeline": Engine.SDXL,
    "StableDiffusionXLImg2ImgPipeline": Engine.SDXL_REFINER,
}
TEXT_ENCODERS = {
    Engine.SD15: ("text_encoder",),
    Engine.SDXL: ("text_encoder", "text_encoder_2"),
    Engine.SDXL_REFINER: ("text_encoder_2",),
}
"""Each engine's, by the names of their folders."""
_SHAPE_KEYS = {
    "unet": (
        "in_channels",
        "down_block_types",
        "up_block_types",
        "block_out_channels",
        "layers_per_block",
        "transformer_layers_per_block",
        "cross_attention_dim",
        "attention_head_dim",
        "addition_embed_type",
        "projection_class_embeddings_input_dim",
    ),
    "text_encoder": ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
}
_DEFAULTS = {"transformer_layers_per_block": 1}


class CheckpointInfo(BaseModel):
    """What can be said of a checkpoint from its configuration alone."""

    engine: Engine
    native_size_px: int
    """The side of the square pictures that it was trained on."""
    shape_class: str
    """The same for checkpoints whose LoRAs fit each other, e.g. `sd15-3f2a9c1d`, whatever their layout."""
    text_widths: list[int]
    """Width of each text encoder, which a textual inversion's vectors must have."""
    latent_channels: int
    vae_factor: int
    """Pixels a side that one latent stands for. A VAE that is to stand in for the checkpoint's has the same two."""
    data_type: str | None = None
    """`fp16` or `fp32`, of a single file; None of a folder, whose weights are not looked at."""

    @property
    def data(self) -> dict[str, Any]:
        """What an asset's `data` says of it, besides the engine."""
        return self.model_dump(exclude={"engine"}, exclude_none=True)


def read_folder(folder: Path) -> CheckpointInfo:
    """Read a checkpoint's folder. Raises InvalidError that says what is missing or wrong."""
    names = (
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        *(f"{part}/config.json" for part in TEXT_ENCODERS[Engine.SDXL]),
    )
    return describe({name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})


def read_file(path: Path) -> CheckpointInfo | ControlNetInfo:
    """Read a checkpoint's file, a tar or a single file. Raises InvalidError that says what is missing, wrong or not allowed."""
    if not _is_tar(path):
        documents, data_type = single_file.read(path)
        info = describe({name: json.dumps(document).encode() for name, document in documents.items()})
        return info.model_copy(update={"data_type": data_type})
    texts: dict[str, bytes] = {}
    with _open(path) as archive:
        for member in _members(archive):
            if member.name.endswith(".json") and member.size <= MAX_JSON_BYTES:
                file = archive.extractfile(member)
                texts[member.name] = file.read() if file else b""
    if "model_index.json" not in texts and controlnet.CONFIG in texts:
        return controlnet.describe(_json(texts, controlnet.CONFIG))
    return describe(texts)


def pack(folder: Path, target: Path) -> str:
    """Pack a folder into `target` and return its SHA-256; the same files always give the same bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in SUFFIXES)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            # Owner, mode and time stay at their defaults, so that only names and contents count.
            member = tarfile.TarInfo(str(PurePosixPath(path.relative_to(folder))))
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(path: Path, target: Path) -> None:
    """Make a new folder in diffusers' layout of a checkpoint's file, which appears whole or not at all. Raises InvalidError.

    A single file's weights stay in one file in it: `shared.models.checkpoints` converts them when it loads.
    """
    draft = target.with_name(target.name + ".part")
    if not _is_tar(path):
        draft.mkdir(parents=True)
        single_file.unpack(path, draft)
        draft.rename(target)
        return
    with _open(path) as archive:
        for member in _members(archive):
            place = draft / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file = archive.extractfile(member) or io.BytesIO()
            with place.open("wb") as out:
                while chunk := file.read(1 << 20):
                    out.write(chunk)
    draft.rename(target)


def _is_tar(path: Path) -> bool:
    # What is neither is refused as a single file, with a message that names both.
    try:
        _open(path).close()
    except tarfile.TarError:
        return False
    return True


def _open(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r:")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the archive's files; raises for anything that could reach outside of a folder or be run."""
    try:
        for count, member in enumerate(archive, 1):
            name = PurePosixPath(member.name)
            if member.isdir():
                continue
            if not member.isreg() or name.is_absolute() or ".." in name.parts or name.suffix not in SUFFIXES:
                msg = f"the checkpoint holds {member.name!r}; only {', '.join(sorted(SUFFIXES))} files are allowed in it"
                raise InvalidError(msg)
            if count > MAX_MEMBERS:
                msg = f"the checkpoint holds more than {MAX_MEMBERS} files"
                raise InvalidError(msg)
            yield member
    except tarfile.TarError as error:
        msg = f"the checkpoint's tar is damaged: {error}"
        raise InvalidError(msg) from error


def describe(texts: dict[str, bytes]) -> CheckpointInfo:
    """Describe a checkpoint by its configuration, JSON by path. Raises InvalidError that says what is missing or wrong."""
    index = _json(texts, "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        msg = f"model_index.json: _class_name {pipeline!r} is not one of {', '.join(_PIPELINES)}"
        raise InvalidError(msg)
    engine = _PIPELINES[pipeline]
    unet, vae = _json(texts, "unet/config.json"), _json(texts, "vae/config.json")
    encoders = TEXT_ENCODERS[engine]
    if engine is Engine.SDXL_REFINER and "text_encoder/config.json" in texts:
        msg = f"model_index.json: _class_name {pipeline!r} is a refiner's, which has no text_encoder, but the checkpoint has one"
        raise InvalidError(msg)
    shape = [_pick(unet, "unet"), *(_pick(_json(texts, f"{name}/config.json"), "text_encoder") for name in encoders)]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:8]
    try:
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return CheckpointInfo(
            engine=engine,
            native_size_px=int(unet["sample_size"]) * factor,
            shape_class=f"{engine.name.lower()}-{digest}",
            text_widths=[int(shaped["hidden_size"]) for shaped in shape[1:]],
            latent_channels=int(vae.get("latent_channels", 4)),
            vae_factor=factor,
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            "unet/config.json needs sample_size, vae/config.json block_out_channels and each text encoder's config.json "
            "hidden_size, as numbers: they tell the native size, and what fits the checkpoint"
        )
        raise InvalidError(msg) from error


def _pick(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Return what decides whether a LoRA fits, said in one way: old configurations leave out defaults, or repeat a number."""
    return {key: _once(config.get(key, _DEFAULTS.get(key))) for key in _SHAPE_KEYS[part]}


def _once(value: Any) -> Any:
    if isinstance(value, list) and value and not isinstance(value[0], str) and all(item == value[0] for item in value):
        return value[0]
    return value


def _json(texts: dict[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(texts[name])
    except KeyError as error:
        msg = f"the checkpoint has no {name}"
        raise InvalidError(msg) from error
    except ValueError as error:
        msg = f"{name} is not JSON"
        raise InvalidError(msg) from error
    if not isinstance(found, dict):
        msg = f"{name} is not a JSON object"
        raise InvalidError(msg)
    return found
