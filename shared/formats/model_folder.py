"""Which files of a packed folder are the model, in diffusers' layout, whatever else people pack with them.

A folder from a hub has a README, previews, and each part's weights in several formats and precisions; one from a desktop has
files of its file manager. Only what the model is loaded from is taken, under the names that diffusers and transformers load by
default.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from shared.errors import InvalidError
from shared.formats import strict_json
from shared.formats.tar import Member

INDEX, CONFIG = "model_index.json", "config.json"
"""What a pipeline's folder and a ControlNet's folder have at their top."""
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The folders with weights, and the name that these have there."""
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
_TOKENIZER_FILES = ({"vocab.json", "merges.txt"}, {"tokenizer.json"})
"""A folder with all files of one of these is a tokenizer."""
_PARTS = {*WEIGHTS, *TOKENIZERS.values(), "scheduler"}
_TAKEN = {".json", ".txt", ".safetensors"}
_PICKLES = {".bin", ".ckpt", ".pt", ".pth"}
_LEFT_OUT = _PICKLES | {".msgpack", ".onnx", ".onnx_data", ".h5", ".xml", ".gguf", ".yaml", ".yml"}
_BESIDE = {".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".db", ".ini"}
_BARE = {"license", "licence", "readme", "notice"}
_WEIGHTS_NAME = re.compile(r"(?P<base>\w+?)(?:\.(?P<variant>\w+))?(?:-(?P<shard>\d{5}-of-\d{5}))?\.safetensors")
_INDEX_NAME = re.compile(r"(?P<base>\w+?)(?:\.(?P<before>\w+))?\.safetensors\.index(?:\.(?P<after>\w+))?\.json")
_VARIANTS = ["", "fp16", "bf16", "fp32", "ema", "non_ema"]
"""The names of weights in several forms, the one that is taken first; "" has no name of its own."""


def files_of(members: Iterable[Member]) -> dict[str, Member]:
    """Return the files that may belong to the model, by their path below its top.

    Raises InvalidError for a file that has no place in a model.
    """
    files = {member.name: member for member in members if not member.is_folder and not _is_beside(member.name)}
    files = _from_its_top(files)
    for name in files:
        if PurePosixPath(name).suffix.lower() not in _TAKEN | _LEFT_OUT:
            msg = f"the checkpoint holds {name!r}; only {', '.join(sorted(_TAKEN))} files are allowed in it"
            raise InvalidError(msg)
    return files


def texts(files: Mapping[str, Member]) -> dict[str, Member]:
    """Return the configuration of the model's parts and its tokenizers. A tokenizer of which a file is missing counts as none."""
    if is_controlnet(files):
        return {CONFIG: files[CONFIG]}
    found = {name: member for name, member in files.items() if _is_text_of_a_part(name)}
    for part, folder in TOKENIZERS.items():
        if not has_tokenizer(files, part):
            found = {name: member for name, member in found.items() if not name.startswith(f"{folder}/")}
    return found


def weights(files: Mapping[str, Member], read: Callable[[Member], bytes]) -> dict[str, Member]:
    """Return the weights of the model's parts; `read` returns the bytes of a file. Raises InvalidError for what is missing."""
    if is_controlnet(files):
        return _weights(files, "", WEIGHTS["unet"], read)
    found: dict[str, Member] = {}
    for part, base in WEIGHTS.items():
        if f"{part}/{CONFIG}" in files:
            found |= _weights(files, f"{part}/", base, read)
    return found


def is_controlnet(files: Mapping[str, Member]) -> bool:
    """Say whether the folder is a single model's, and not a pipeline's."""
    return INDEX not in files and CONFIG in files


def has_tokenizer(files: Mapping[str, Member], part: str) -> bool:
    """Say whether a text encoder has its tokenizer beside it."""
    return any(all(f"{TOKENIZERS[part]}/{name}" in files for name in names) for names in _TOKENIZER_FILES)


def _is_beside(name: str) -> bool:
    """Say whether a file is the file manager's, an editor's or a reader's, and not the model's."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return is_hidden or path.suffix.lower() in _BESIDE or path.stem.lower() in _BARE


def _from_its_top(files: dict[str, Member]) -> dict[str, Member]:
    """Return the files by their path below the folder that holds all of them, as in `tar -cf model.tar model`."""
    while files and INDEX not in files and CONFIG not in files:
        tops = {PurePosixPath(name).parts[0] for name in files}
        if len(tops) > 1 or tops <= files.keys():
            break
        files = {name.partition("/")[2]: member for name, member in files.items()}
    return files


def _is_text_of_a_part(name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix == ".safetensors" or path.suffix not in _TAKEN or _INDEX_NAME.fullmatch(path.name):
        return False
    return name == INDEX or (len(path.parts) == 2 and path.parts[0] in _PARTS)  # noqa: PLR2004 - a part and its file


def _weights(files: Mapping[str, Member], folder: str, base: str, read: Callable[[Member], bytes]) -> dict[str, Member]:
    """Return the weights in a folder by the names that they are loaded by: one file, or an index and its shards."""
    here = {name.removeprefix(folder): member for name, member in files.items() if name.startswith(folder)}
    wholes: dict[str, str] = {}
    indexes: dict[str, str] = {}
    for name in here:
        if (found := _WEIGHTS_NAME.fullmatch(name)) and found["base"] == base and not found["shard"]:
            wholes[found["variant"] or ""] = name
        elif (found := _INDEX_NAME.fullmatch(name)) and found["base"] == base:
            indexes[found["before"] or found["after"] or ""] = name
    for variant in sorted({*wholes, *indexes}, key=_rank):
        if variant in wholes:
            return {f"{folder}{base}.safetensors": here[wholes[variant]]}
        shards = _shards(read(here[indexes[variant]]), folder + indexes[variant])
        if missing := sorted(shards - here.keys()):
            msg = f"the checkpoint has no {folder}{missing[0]}, which {folder}{indexes[variant]} names; pack the whole folder"
            raise InvalidError(msg)
        index = {f"{folder}{base}.safetensors.index.json": here[indexes[variant]]}
        return index | {folder + shard: here[shard] for shard in shards}
    wanted = f"{folder}{base}.safetensors"
    if pickle := next((name for name in here if PurePosixPath(name).suffix.lower() in _PICKLES), None):
        msg = f"the checkpoint has {folder}{pickle}, a pickle, which is never read, and no {wanted}; convert it to safetensors"
    else:
        msg = f"the checkpoint has no weights {wanted}; download the whole model again and pack its folder"
    raise InvalidError(msg)


def _rank(variant: str) -> tuple[int, str]:
    return (_VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS), variant)


def _shards(text: bytes, name: str) -> set[str]:
    """Return the names of the files that an index names, which lie beside it. Raises InvalidError."""
    weight_map: Any = strict_json.load_object(text, name).get("weight_map")
    names: set[object] = set(cast("dict[str, object]", weight_map).values()) if isinstance(weight_map, dict) else set()
    shards = {shard for shard in names if isinstance(shard, str) and _WEIGHTS_NAME.fullmatch(shard)}
    if not shards or len(shards) != len(names):
        msg = f"{name} does not name the files of the weights in its weight_map; download it again"
        raise InvalidError(msg)
    return shards
