"""Checkpoint files: a whole model as one object, read without torch.

A checkpoint is a folder in diffusers' layout (`model_index.json`, `unet/`, `vae/`, `text_encoder/`, ...), packed into one
uncompressed tar with JSON, text and safetensors files only; or one safetensors file in the layout of Stable Diffusion's own
releases. So it has one key, one SHA-256 and one presigned URL. A ControlNet is a checkpoint too, with a folder of another kind
(`shared/formats/controlnet.py`). Nothing in a checkpoint is unpickled or executed.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

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
"""The folders of each engine's text encoders."""
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
    """What the configuration tells of a checkpoint."""

    engine: Engine
    native_size_px: int
    """The side of the square images that it was trained on."""
    shape_class: str
    """The same, such as `sd15-3f2a9c1d`, for all checkpoints that a LoRA fits, whatever their layout."""
    text_widths: list[int]
    """The width of each text encoder, which a textual inversion's vectors must have."""
    latent_channels: int
    vae_factor: int
    """Pixels on each side that one latent stands for. A VAE that replaces the checkpoint's needs both numbers to be the same."""
    data_type: str | None = None
    """`fp16` or `fp32` for a single file; None for a folder, whose weights are not read."""

    @property
    def data(self) -> dict[str, Any]:
        """The fields of an asset's `data` besides the engine."""
        return self.model_dump(exclude={"engine"}, exclude_none=True)


def read_folder(folder: Path) -> CheckpointInfo:
    """Describe an unpacked checkpoint. Raises InvalidError that says what is missing or wrong."""
    names = (
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        *(f"{part}/config.json" for part in TEXT_ENCODERS[Engine.SDXL]),
    )
    return describe({name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})


def read_file(path: Path) -> CheckpointInfo | ControlNetInfo:
    """Describe a checkpoint's file, a tar or a single file. Raises InvalidError that says what is wrong."""
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
    """Pack a folder into `target`, and return its SHA-256. The same files give the same bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in SUFFIXES)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            # Owner, mode and time keep their defaults, so that the bytes depend on names and contents only.
            member = tarfile.TarInfo(str(PurePosixPath(path.relative_to(folder))))
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(path: Path, target: Path) -> None:
    """Unpack a checkpoint's file to a new folder in diffusers' layout, which appears whole or not at all. Raises InvalidError.

    The weights of a single file stay in one file: `shared.models.checkpoints` converts them when it loads them.
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
    # A file of neither format is refused as a single file, with a message that names both formats.
    try:
        _open(path).close()
    except tarfile.TarError:
        return False
    return True


def _open(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r:")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the archive's files. Raises InvalidError for a member that could be written elsewhere, or that is no data file."""
    try:
        for count, member in enumerate(archive, 1):
            name = PurePosixPath(member.name)
            if member.isdir():
                continue
            if not member.isreg() or name.is_absolute() or ".." in name.parts or name.suffix not in SUFFIXES:
                msg = f"the checkpoint has {member.name!r}; only {', '.join(sorted(SUFFIXES))} files are allowed"
                raise InvalidError(msg)
            if count > MAX_MEMBERS:
                msg = f"the checkpoint has more than {MAX_MEMBERS} files; leave out what is no part of the model"
                raise InvalidError(msg)
            yield member
    except tarfile.TarError as error:
        msg = f"the checkpoint's tar is damaged: {error}"
        raise InvalidError(msg) from error


def describe(texts: dict[str, bytes]) -> CheckpointInfo:
    """Describe a checkpoint by its configuration, as JSON by path. Raises InvalidError that says what is missing or wrong."""
    index = _json(texts, "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        msg = f"model_index.json: _class_name {pipeline!r} is not one of {', '.join(_PIPELINES)}"
        raise InvalidError(msg)
    engine = _PIPELINES[pipeline]
    unet, vae = _json(texts, "unet/config.json"), _json(texts, "vae/config.json")
    encoders = TEXT_ENCODERS[engine]
    if engine is Engine.SDXL_REFINER and "text_encoder/config.json" in texts:
        msg = f"model_index.json: _class_name {pipeline!r} is a refiner's, which has no text_encoder; the checkpoint has one"
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
            "numbers are missing that tell the native size and what fits the checkpoint: unet/config.json needs sample_size, "
            "vae/config.json block_out_channels, and each text encoder's config.json hidden_size"
        )
        raise InvalidError(msg) from error


def _pick(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Return what decides whether a LoRA fits, in one form: old configurations omit defaults, or repeat a number per level."""
    return {key: _once(config.get(key, _DEFAULTS.get(key))) for key in _SHAPE_KEYS[part]}


def _once(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    items = cast("list[Any]", value)
    is_repeated = bool(items) and not isinstance(items[0], str) and all(item == items[0] for item in items)
    return items[0] if is_repeated else items


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
    return cast("dict[str, Any]", found)
