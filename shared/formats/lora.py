"""What a LoRA file says of itself, read from its safetensors header without torch.

Key layouts: diffusers (`unet.<module>.lora.down.weight` or `.lora_A.weight`), PEFT (`base_model.model.<module>.lora_A.weight`)
and kohya-ss (`lora_unet_<module>.lora_down.weight`). Ours are diffusers', with engine, shape class, base and trigger word in
the file's metadata; in others' files the shapes tell the engine: cross-attention keys are projected from 768 features in
SD 1.5 and from 2048 in SDXL. Where a LoRA has none of those, its metadata may tell: kohya-ss writes `ss_*` keys, and
Stability AI's model specification (github.com/Stability-AI/ModelSpec) has `modelspec.*`.
"""

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats.safetensors import Header, Tensor, read_header

_DOWN = re.compile(r"\.(lora_A|lora\.down|lora_linear_layer\.down|lora_down)(\.default)?\.weight$")
_UP = re.compile(r"\.(lora_B|lora\.up|lora_linear_layer\.up|lora_up)(\.default)?\.weight$")
_OTHER = re.compile(r"\.(alpha|dora_scale|lora_magnitude_vector(\.default)?(\.weight)?)$")
_CROSS_ATTENTION = re.compile(r"attn2[._]to_[kv]\b")
_FEATURES = {768: Engine.SD15, 2048: Engine.SDXL}
_DATA_TYPES = {"F16": "fp16", "BF16": "fp16", "F32": "fp32"}
_MAX_RANK = 1024
_WORD = re.compile(r"[^\x00-\x1f]{1,200}")
_MAX_WORDS = 5
_OTHER_KINDS = {
    re.compile(r"\.(hada_w|lokr_w|oft_|on_input$)"): "weights of LyCORIS (LoHa, LoKr, OFT, IA3); only LoRAs proper are read",
    re.compile(r"\.lora_mid\.weight$"): "a convolution in three parts (lora_mid); only two-part LoRAs are read",
    re.compile(
        r"^(base_model\.model\.)?(transformer\.|lora_transformer_|lora_unet_(double|single|joint)_blocks_|double_blocks\.)"
    ): ("a LoRA for a transformer model such as FLUX or SD 3; LoRAs for SD 1.5 and SDXL are read"),
}
_ARCHITECTURES = {
    "stable-diffusion-v1": Engine.SD15,
    "stable-diffusion-xl-v1": Engine.SDXL,
    "sd_v1": Engine.SD15,
    "sd_1.5": Engine.SD15,
    "sdxl": Engine.SDXL,
}
"""How the values of `modelspec.architecture` and `ss_base_model_version` begin."""
_SD2_FEATURES = 1024


class KeyFormat(StrEnum):
    """The naming of a LoRA's tensors."""

    DIFFUSERS = "diffusers"
    PEFT = "peft"
    KOHYA = "kohya"


class LoraInfo(BaseModel):
    """What can be said of a LoRA from its header. `None` or empty where the header does not tell."""

    engine: Engine | None
    key_format: KeyFormat
    rank: int
    """The largest rank of its adapters."""
    data_type: str
    """`fp16` (bfloat16 counts as it) or `fp32`: OctoAI knows no others for a LoRA."""
    trigger_words: list[str]
    base_sha256: str | None
    shape_class: str | None
    """As its metadata says; else that of the published checkpoint that it was made for."""
    has_text_encoder: bool


def read_lora(path: Path) -> LoraInfo:
    """Read a LoRA file. Raises InvalidError that says why it is not one."""
    header = read_header(path)
    for pattern, what in _OTHER_KINDS.items():
        if found := next(filter(pattern.search, header.tensors), None):
            msg = f"the file holds {found[:200]!r}, {what}"
            raise InvalidError(msg)
    downs = {name: tensor for name, tensor in header.tensors.items() if _DOWN.search(name)}
    if not downs:
        msg = (
            "the file holds no LoRA weights: no tensor is named like diffusers', PEFT's or kohya's (lora_A, lora.down, lora_down)"
        )
        raise InvalidError(msg)
    _check_pairs(header, downs)
    ranks = {tensor.shape[0] for tensor in downs.values()}
    if not 1 <= min(ranks) <= max(ranks) <= _MAX_RANK:
        msg = f"the LoRA has ranks from {min(ranks)} to {max(ranks)}; 1 to {_MAX_RANK} are allowed"
        raise InvalidError(msg)
    types = {tensor.dtype for tensor in downs.values()}
    if unknown := sorted(types - _DATA_TYPES.keys()):
        msg = f"the LoRA's weights are {', '.join(unknown)}; float16, bfloat16 or float32 are needed"
        raise InvalidError(msg)
    meta = header.metadata
    return LoraInfo(
        engine=_engine(header.metadata, downs),
        key_format=_key_format(downs),
        rank=max(ranks),
        data_type="fp32" if "F32" in types else "fp16",
        trigger_words=_trigger_words(meta),
        base_sha256=meta.get("base_sha256"),
        shape_class=meta.get("shape_class") or _full_size(downs),
        has_text_encoder=any("text_encoder" in name or name.startswith("lora_te") for name in downs),
    )


def _check_pairs(header: Header, downs: dict[str, Tensor]) -> None:
    """Every tensor is half of a pair whose ranks agree, or a scale of one: a whole model or a stray tensor is neither."""
    ups = {_UP.sub("", name): tensor for name, tensor in header.tensors.items() if _UP.search(name)}
    for name, down in downs.items():
        up = ups.pop(_DOWN.sub("", name), None)
        if up is None or len(up.shape) < 2 or len(down.shape) < 2 or up.shape[1] != down.shape[0]:  # noqa: PLR2004
            msg = f"the LoRA's {name[:200]!r} has no counterpart of its rank"
            raise InvalidError(msg)
    strays = [n for n in header.tensors if not (_DOWN.search(n) or _UP.search(n) or _OTHER.search(n))]
    if ups or strays:
        msg = f"the file holds {min([*ups, *strays])[:200]!r}, which is no part of a LoRA"
        raise InvalidError(msg)


def _key_format(downs: dict[str, Tensor]) -> KeyFormat:
    first = next(iter(downs))
    if first.startswith("base_model.model."):
        return KeyFormat.PEFT
    return KeyFormat.KOHYA if first.startswith("lora_") else KeyFormat.DIFFUSERS


def _full_size(downs: dict[str, Tensor]) -> str | None:
    """Return the shape class of the published checkpoint whose text features the LoRA's cross-attention sees."""
    engine = _engine({}, downs)
    return FULL_SIZE_SHAPES[engine] if engine else None


def _engine(metadata: dict[str, str], downs: dict[str, Tensor]) -> Engine | None:
    told = metadata.get("engine")
    if told in set(Engine):
        return Engine(told)
    features = {tensor.shape[1] for name, tensor in downs.items() if _CROSS_ATTENTION.search(name)}
    if features == {_SD2_FEATURES}:
        msg = "the LoRA is for Stable Diffusion 2: its cross-attention has 1024 features; SD 1.5 has 768 and SDXL 2048"
        raise InvalidError(msg)
    if len(features) == 1:
        return _FEATURES.get(features.pop())
    # Without cross-attention: only SDXL has a second text encoder.
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in downs):
        return Engine.SDXL
    told = [metadata.get(key, "").lower() for key in ("modelspec.architecture", "ss_base_model_version")]
    return next((engine for value in told for start, engine in _ARCHITECTURES.items() if value.startswith(start)), None)


def _trigger_words(metadata: dict[str, str]) -> list[str]:
    for key in ("trigger_word", "modelspec.trigger_phrase"):
        if _WORD.fullmatch(word := metadata.get(key, "").strip()):
            return [word]
    return _common_tags(metadata)


def _common_tags(metadata: dict[str, str]) -> list[str]:
    """Return the tags that stood in every caption of a folder: that is what a LoRA of kohya-ss was taught to go by.

    `ss_tag_frequency` says how often each tag stood in a folder's captions, `ss_dataset_dirs` how many pictures it had.
    """
    frequencies, folders = (_object(metadata.get(key)) for key in ("ss_tag_frequency", "ss_dataset_dirs"))
    common: list[str] = []
    for folder, tags in frequencies.items():
        about = folders.get(folder)
        pictures = about.get("img_count") if isinstance(about, dict) else None
        if isinstance(tags, dict) and isinstance(pictures, int) and pictures > 0:
            common += [tag.strip() for tag, times in tags.items() if isinstance(times, int) and times >= pictures]
    return [word for word in dict.fromkeys(common) if _WORD.fullmatch(word)][:_MAX_WORDS]


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
