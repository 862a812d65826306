"""Checkpoint files: how a model folder travels as one object, read without torch.

A checkpoint is a folder in diffusers' layout (`model_index.json`, `unet/`, `vae/`, `text_encoder/`, ...), packed into one
uncompressed tar, so that it has one key, one SHA-256 and one presigned URL. Only JSON, text and safetensors files are
allowed in it: nothing in a checkpoint is ever unpickled or run.
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

SUFFIXES = frozenset({".json", ".txt", ".safetensors"})
MAX_MEMBERS = 200
MAX_JSON_BYTES = 8 * 2**20
_PIPELINES = {"StableDiffusionPipeline": Engine.SD15, "StableDiffusionXLPipeline": Engine.SDXL}
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
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


class CheckpointInfo(BaseModel):
    """What can be said of a checkpoint from its configuration alone."""

    engine: Engine
    native_size_px: int
    """The side of the square pictures that it was trained on."""
    shape_class: str
    """The same for checkpoints whose LoRAs fit each other, e.g. `sd15-3f2a9c1d`."""


def read_folder(folder: Path) -> CheckpointInfo:
    """Read a checkpoint's folder. Raises InvalidError that says what is missing or wrong."""
    names = ("model_index.json", "unet/config.json", "vae/config.json", *(f"{part}/config.json" for part in _TEXT_ENCODERS))
    return _describe({name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})


def read_tar(path: Path) -> CheckpointInfo:
    """Read a packed checkpoint. Raises InvalidError that says what is missing, wrong or not allowed in it."""
    texts: dict[str, bytes] = {}
    with _open(path) as archive:
        for member in _members(archive):
            if member.name.endswith(".json") and member.size <= MAX_JSON_BYTES:
                file = archive.extractfile(member)
                texts[member.name] = file.read() if file else b""
    return _describe(texts)


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
    """Unpack a checkpoint into a new folder, which appears whole or not at all. Raises InvalidError."""
    draft = target.with_name(target.name + ".part")
    with _open(path) as archive:
        for member in _members(archive):
            place = draft / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file = archive.extractfile(member) or io.BytesIO()
            with place.open("wb") as out:
                while chunk := file.read(1 << 20):
                    out.write(chunk)
    draft.rename(target)


def _open(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except tarfile.TarError as error:
        msg = "the checkpoint is not an uncompressed tar of a model folder in diffusers' layout"
        raise InvalidError(msg) from error


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


def _describe(texts: dict[str, bytes]) -> CheckpointInfo:
    index = _json(texts, "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        msg = f"model_index.json: _class_name {pipeline!r} is not one of {', '.join(_PIPELINES)}"
        raise InvalidError(msg)
    engine = _PIPELINES[pipeline]
    unet, vae = _json(texts, "unet/config.json"), _json(texts, "vae/config.json")
    encoders = _TEXT_ENCODERS if engine is Engine.SDXL else _TEXT_ENCODERS[:1]
    shape = [_pick(unet, "unet"), *(_pick(_json(texts, f"{name}/config.json"), "text_encoder") for name in encoders)]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:8]
    try:
        native = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (KeyError, TypeError, ValueError) as error:
        msg = "unet/config.json needs sample_size, vae/config.json needs block_out_channels: they give the native size"
        raise InvalidError(msg) from error
    return CheckpointInfo(engine=engine, native_size_px=native, shape_class=f"{engine.name.lower()}-{digest}")


def _pick(config: dict[str, Any], part: str) -> dict[str, Any]:
    return {key: config.get(key) for key in _SHAPE_KEYS[part]}


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
