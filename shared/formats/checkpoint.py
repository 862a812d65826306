"""Checkpoint files: a whole model as one object, read without torch.

A checkpoint is a folder in diffusers' layout (`model_index.json`, `unet/`, `vae/`, `text_encoder/`, ...), packed into one
uncompressed tar with JSON, text and safetensors files only; or one safetensors file in the layout of Stable Diffusion's own
releases. So it has one key, one SHA-256 and one presigned URL. A ControlNet is a checkpoint too, with a folder of another kind
(`shared/formats/controlnet.py`). Nothing in a checkpoint is unpickled or executed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import controlnet, single_file, strict_json, tar
from shared.formats.controlnet import ControlNetInfo
from shared.formats.files import Source, opened
from shared.formats.tar import Member

SUFFIXES = frozenset({".json", ".txt", ".safetensors"})
MAX_TEXT_BYTES = 8 * 2**20
"""Of a file that is no weights: a tokenizer's vocabulary has 3 MB."""
MAX_TEXTS_BYTES = 4 * MAX_TEXT_BYTES
_MAX_CONFIG_BYTES = 2**20
_MAX_SIDE_PX, _MAX_LEVELS, _MAX_LATENT, _MAX_WIDTH = 16_384, 8, 64, 65_536
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


def read_file(source: Source) -> CheckpointInfo | ControlNetInfo:
    """Read a checkpoint's file, a tar or a single file. Raises InvalidError that says what is missing, wrong or not allowed."""
    with opened(source) as file:
        if not tar.is_tar(file):
            documents, data_type = single_file.read(file)
            info = describe({name: json.dumps(document).encode() for name, document in documents.items()})
            return info.model_copy(update={"data_type": data_type})
        texts: dict[str, bytes] = {}
        for member in _members(file):
            if member.name.endswith(".json"):
                file.seek(member.start)
                text = file.read(member.size)
                # Also those that nobody looks at here: the libraries of the workers read them.
                strict_json.loads(text, member.name)
                if member.size <= _MAX_CONFIG_BYTES:
                    texts[member.name] = text
    if "model_index.json" not in texts and controlnet.CONFIG in texts:
        return controlnet.describe(_json(texts, controlnet.CONFIG))
    return describe(texts)


def pack(folder: Path, target: Path) -> str:
    """Pack a folder into `target` and return its SHA-256; the same files always give the same bytes."""
    # Here, so that the confined child, which packs nothing, starts without it.
    import tarfile  # noqa: PLC0415

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


class Layout(BaseModel):
    """What a checkpoint's file becomes as a folder: files that lie in it, or documents to be written beside the file itself."""

    members: list[Member] = []
    documents: dict[str, dict[str, Any]] = {}


def lay_out(source: Source) -> Layout:
    """Say how to unpack a checkpoint's file. Raises InvalidError."""
    with opened(source) as file:
        if not tar.is_tar(file):
            return Layout(documents=single_file.read(file)[0])
        return Layout(members=[member for member in _members(file) if not member.is_folder])


def unpack(path: Path, target: Path, layout: Layout | None = None) -> None:
    """Make a new folder in diffusers' layout of a checkpoint's file, which appears whole or not at all. Raises InvalidError.

    `layout` is what `lay_out` said of the file, where a confined child has read it. A single file's weights stay in one file in
    the folder: `shared.models.checkpoints` converts them when it loads.
    """
    layout = layout or lay_out(path)
    draft = target.with_name(target.name + ".part")
    try:
        draft.mkdir(parents=True)
        if layout.documents:
            single_file.unpack(path, draft, layout.documents)
        else:
            _extract(path, draft, layout.members)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(path: Path, folder: Path, members: list[Member]) -> None:
    with path.open("rb") as file:
        # A child may have been taken over by the file that it read: what it says is checked again.
        for member in _checked(members):
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file.seek(member.start)
            left = member.size
            with place.open("xb") as out:
                while left and (chunk := file.read(min(left, 1 << 20))):
                    out.write(chunk)
                    left -= len(chunk)


def _members(file: BinaryIO) -> Iterator[Member]:
    return _checked(tar.members(file))


def _checked(members: Iterator[Member] | list[Member]) -> Iterator[Member]:
    """Yield the members; raises for anything that could reach outside of a folder, be run, or take more room than it may."""
    seen: set[str] = set()
    parents: set[str] = set()
    text_bytes = 0
    for member in members:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            msg = f"the checkpoint holds {member.name!r}, which lies outside of its folder; pack the folder's files alone"
            raise InvalidError(msg)
        if member.is_folder:
            parents.add(member.name)
            continue
        if name.suffix not in SUFFIXES:
            msg = f"the checkpoint holds {member.name!r}; only {', '.join(sorted(SUFFIXES))} files are allowed in it"
            raise InvalidError(msg)
        parents |= {str(parent) for parent in name.parents}
        if member.name in seen or member.name in parents or seen & parents:
            msg = f"the checkpoint holds {member.name!r} twice, or as a file and a folder; pack the folder again"
            raise InvalidError(msg)
        seen.add(member.name)
        if name.suffix != ".safetensors":
            text_bytes += member.size
            if member.size > MAX_TEXT_BYTES or text_bytes > MAX_TEXTS_BYTES:
                msg = (
                    f"the checkpoint's {member.name!r} has {member.size} bytes; a .json or .txt file may have at most "
                    f"{MAX_TEXT_BYTES}, and all of them {MAX_TEXTS_BYTES}"
                )
                raise InvalidError(msg)
        yield member


def describe(texts: dict[str, bytes]) -> CheckpointInfo:
    """Describe a checkpoint by its configuration, as JSON by path. Raises InvalidError that says what is missing or wrong."""
    index = _json(texts, "model_index.json")
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in _PIPELINES:
        msg = f"model_index.json: _class_name {str(pipeline)[:100]!r} is not one of {', '.join(_PIPELINES)}"
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
        factor = 2 ** (_within(len(vae["block_out_channels"]), _MAX_LEVELS) - 1)
        return CheckpointInfo(
            engine=engine,
            native_size_px=_within(_within(unet["sample_size"], _MAX_SIDE_PX) * factor, _MAX_SIDE_PX),
            shape_class=f"{engine.name.lower()}-{digest}",
            text_widths=[_within(shaped["hidden_size"], _MAX_WIDTH) for shaped in shape[1:]],
            latent_channels=_within(vae.get("latent_channels", 4), _MAX_LATENT),
            vae_factor=factor,
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            f"unet/config.json needs sample_size (a native size of at most {_MAX_SIDE_PX} px), vae/config.json "
            f"block_out_channels (at most {_MAX_LEVELS}) and latent_channels (at most {_MAX_LATENT}), and each text encoder's "
            f"config.json hidden_size (at most {_MAX_WIDTH}), as numbers: they tell the native size, and what fits the checkpoint"
        )
        raise InvalidError(msg) from error


def _within(value: object, most: int) -> int:
    """Return a whole number from 1 to the most that is allowed. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(value)
    return value


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
    if name not in texts:
        msg = f"the checkpoint has no {name} of at most {_MAX_CONFIG_BYTES} bytes"
        raise InvalidError(msg)
    return strict_json.load_object(texts[name], name)
