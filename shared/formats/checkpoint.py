"""Checkpoint files: a whole model as one object, read without torch.

A checkpoint is a folder in diffusers' layout (`model_index.json`, `unet/`, `vae/`, `text_encoder/`, ...), packed into one
uncompressed tar with JSON, text and safetensors files only; or one safetensors file in the layout of Stable Diffusion's own
releases. So it has one key, one SHA-256 and one presigned URL. A ControlNet is a checkpoint too, with a folder of another kind
(`shared/formats/controlnet.py`). Nothing in a checkpoint is unpickled or executed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import controlnet, mistaken, model_folder, model_weights, single_file, strict_json, tar
from shared.formats.clip import tokenizer as clip_tokenizer
from shared.formats.controlnet import ControlNetInfo
from shared.formats.files import Source, opened
from shared.formats.tar import Member

MAX_TEXT_BYTES = 8 * 2**20
"""Of a file that is no weights: a tokenizer's vocabulary has 3 MB."""
MAX_TEXTS_BYTES = 4 * MAX_TEXT_BYTES
_MAX_CONFIG_BYTES = 2**20
_SCHEDULER = "scheduler/scheduler_config.json"
_MAX_SIDE_PX, _MAX_LEVELS, _MAX_LATENT, _MAX_WIDTH = 16_384, 8, 64, 65_536
_PACKED = {".json", ".txt", ".safetensors"}
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
    """`fp16` or `fp32`; None for an unpacked folder, whose weights are not read."""

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
    mistaken.check(source, "checkpoint")
    with opened(source) as file:
        if not tar.is_tar(file):
            documents, data_type = single_file.read(file)
            info = describe({name: json.dumps(document).encode() for name, document in documents.items()})
            return info.model_copy(update={"data_type": data_type})
        return _read_folder_in(file)


def _read_folder_in(file: BinaryIO) -> CheckpointInfo | ControlNetInfo:
    files = model_folder.files_of(_checked(tar.members(file)))
    configs = model_folder.texts(files)
    _check_sizes(configs)
    texts: dict[str, bytes] = {}
    for name, member in configs.items():
        if name.endswith(".json"):
            text = _bytes(file, member)
            # Also those that nobody looks at here: the libraries of the workers read them.
            strict_json.loads(text, name)
            if member.size <= _MAX_CONFIG_BYTES:
                texts[name] = text
    if model_folder.is_controlnet(files):
        found = controlnet.describe(_json(texts, controlnet.CONFIG))
        model_weights.tensors(file, _weights(file, files))
        return found
    info = describe(texts)
    parts = {part: _json(texts, f"{part}/config.json") for part in ("unet", "vae", *TEXT_ENCODERS[info.engine])}
    for part in TEXT_ENCODERS[info.engine]:
        if not model_folder.has_tokenizer(files, part):
            clip_tokenizer.check(parts[part].get("vocab_size", clip_tokenizer.FULL))
    return info.model_copy(update={"data_type": model_weights.check(file, _weights(file, files), parts)})


def pack(folder: Path, target: Path) -> str:
    """Pack a folder into `target` and return its SHA-256; the same files always give the same bytes."""
    # Here, so that the confined child, which packs nothing, starts without it.
    import tarfile  # noqa: PLC0415

    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _PACKED)
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
    """Under the names that they get in the folder; none for a single file."""
    documents: dict[str, dict[str, Any]] = {}


def lay_out(source: Source) -> Layout:
    """Say how to unpack a checkpoint's file. Raises InvalidError."""
    with opened(source) as file:
        if not tar.is_tar(file):
            return Layout(documents=single_file.read(file)[0])
        files = model_folder.files_of(_checked(tar.members(file)))
        texts = model_folder.texts(files)
        _check_sizes(texts)
        taken = texts | _weights(file, files)
        members = [member.model_copy(update={"name": name}) for name, member in taken.items()]
        is_controlnet = model_folder.is_controlnet(files)
        if not is_controlnet and model_folder.INDEX not in files:
            raise _missing(model_folder.INDEX)
        has_schedule = is_controlnet or _SCHEDULER in files
        return Layout(members=members, documents={} if has_schedule else {_SCHEDULER: single_file.schedule()})


def unpack(path: Path, target: Path, layout: Layout | None = None) -> None:
    """Make a new folder in diffusers' layout of a checkpoint's file, which appears whole or not at all. Raises InvalidError.

    `layout` is what `lay_out` said of the file, where a confined child has read it. A single file's weights stay in one file in
    the folder: `shared.models.checkpoints` converts them when it loads.
    """
    layout = layout or lay_out(path)
    draft = target.with_name(target.name + ".part")
    try:
        draft.mkdir(parents=True)
        if layout.members:
            _extract(path, draft, layout.members)
            single_file.write_documents(draft, layout.documents)
            _add_tokenizers(draft)
        else:
            single_file.unpack(path, draft, layout.documents)
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


def _add_tokenizers(folder: Path) -> None:
    """Write CLIP's own tokenizer for each text encoder that came without one."""
    for part, tokenizer in model_folder.TOKENIZERS.items():
        place = folder / part / "config.json"
        if place.is_file() and not (folder / tokenizer).is_dir():
            config = strict_json.load_object(place.read_bytes(), f"{part}/config.json")
            clip_tokenizer.write_for(folder / tokenizer, config)


def _weights(file: BinaryIO, files: Mapping[str, Member]) -> dict[str, Member]:
    return model_folder.weights(files, lambda member: _bytes(file, member))


def _bytes(file: BinaryIO, member: Member) -> bytes:
    _check_sizes({member.name: member})
    file.seek(member.start)
    return file.read(member.size)


def _check_sizes(texts: Mapping[str, Member]) -> None:
    sizes = {name: member.size for name, member in texts.items()}
    largest = max(sizes, key=sizes.__getitem__, default="")
    if sizes and (sizes[largest] > MAX_TEXT_BYTES or sum(sizes.values()) > MAX_TEXTS_BYTES):
        msg = (
            f"the checkpoint's {largest!r} has {sizes[largest]} bytes; a .json or .txt file may have at most {MAX_TEXT_BYTES}, "
            f"and all of them {MAX_TEXTS_BYTES}"
        )
        raise InvalidError(msg)


def _checked(members: Iterator[Member] | list[Member]) -> Iterator[Member]:
    """Yield the members; raises for anything that could reach outside of a folder, or is there twice."""
    seen: set[str] = set()
    parents: set[str] = set()
    for member in members:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            msg = f"the checkpoint holds {member.name!r}, which lies outside of its folder; pack the folder's files alone"
            raise InvalidError(msg)
        if member.is_folder:
            parents.add(member.name)
            continue
        parents |= {str(parent) for parent in name.parents}
        if member.name in seen or member.name in parents or seen & parents:
            msg = f"the checkpoint holds {member.name!r} twice, or as a file and a folder; pack the folder again"
            raise InvalidError(msg)
        seen.add(member.name)
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
        raise _missing(name)
    return strict_json.load_object(texts[name], name)


def _missing(name: str) -> InvalidError:
    return InvalidError(f"the checkpoint has no {name} of at most {_MAX_CONFIG_BYTES} bytes; pack the whole folder of the model")
