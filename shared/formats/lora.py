"""LoRA files, described by their safetensors headers, without torch.

Key layouts: diffusers (`unet.<module>.lora.down.weight` or `.lora_A.weight`), PEFT (`base_model.model.<module>.lora_A.weight`)
and kohya-ss (`lora_unet_<module>.lora_down.weight`). Tunesmith's own files have diffusers' layout, with engine, shape class, base
and trigger word in the metadata. In other files the shapes tell the engine: cross-attention keys are projected from 768 features
in SD 1.5 and from 2048 in SDXL. For a LoRA without cross-attention the metadata may tell: kohya-ss writes `ss_*` keys, and
Stability AI's model specification (github.com/Stability-AI/ModelSpec) has `modelspec.*`.
"""

import re
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats import strict_json
from shared.formats.files import Source
from shared.formats.safetensors import Header, Tensor, data_type, read_header

_DOWN = re.compile(r"\.(lora_A|lora\.down|lora_linear_layer\.down|lora_down)(\.default)?\.weight$")
_UP = re.compile(r"\.(lora_B|lora\.up|lora_linear_layer\.up|lora_up)(\.default)?\.weight$")
_OTHER = re.compile(r"\.(alpha|dora_scale|lora_magnitude_vector(\.default)?(\.weight)?)$")
_CROSS_ATTENTION = re.compile(r"attn2[._]to_[kv]\b")
_FEATURES = {768: Engine.SD15, 2048: Engine.SDXL}
_MAX_RANK = 1024
_WORD = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Half a surrogate pair is text to JSON, and to no database."""
_MAX_WORDS = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHAPE_CLASS = re.compile(r"[a-z0-9_-]{1,100}")
_OTHER_KINDS = {
    re.compile(r"\.(hada_w|lokr_w|oft_|on_input$)"): "a weight of LyCORIS (LoHa, LoKr, OFT, IA3); only LoRAs are supported",
    re.compile(r"\.lora_mid\.weight$"): "a convolution in three parts (lora_mid); only LoRAs in two parts are supported",
    re.compile(
        r"^(base_model\.model\.)?(transformer\.|lora_transformer_|lora_unet_(double|single|joint)_blocks_|double_blocks\.)"
    ): ("a LoRA for a transformer model such as FLUX or SD 3; LoRAs for SD 1.5 and SDXL are supported"),
}
_ARCHITECTURES = {
    "stable-diffusion-v1": Engine.SD15,
    "stable-diffusion-xl-v1": Engine.SDXL,
    "sd_v1": Engine.SD15,
    "sd_1.5": Engine.SD15,
    "sdxl": Engine.SDXL,
}
"""Engines by the beginnings of the values of `modelspec.architecture` and `ss_base_model_version`."""
_SD2_FEATURES = 1024


class KeyFormat(StrEnum):
    """The naming of a LoRA's tensors."""

    DIFFUSERS = "diffusers"
    PEFT = "peft"
    KOHYA = "kohya"


class LoraInfo(BaseModel):
    """What the header tells of a LoRA; None or empty where it does not tell."""

    engine: Engine | None
    key_format: KeyFormat
    rank: int
    """The largest rank of its adapters."""
    data_type: str
    """`fp16` (bfloat16 counts as it) or `fp32`."""
    trigger_words: list[str]
    base_sha256: str | None
    shape_class: str | None
    """That of its metadata, or else that of the published checkpoint that it was made for."""
    has_text_encoder: bool


def read_lora(source: Source) -> LoraInfo:
    """Read a LoRA file. Raises InvalidError that says why it is not one."""
    header = read_header(source)
    for pattern, what in _OTHER_KINDS.items():
        if found := next(filter(pattern.search, header.tensors), None):
            msg = f"the file has {found[:200]!r}, {what}"
            raise InvalidError(msg)
    downs = {name: tensor for name, tensor in header.tensors.items() if _DOWN.search(name)}
    if not downs:
        msg = "the file has no LoRA weights: no tensor is named as in diffusers, PEFT or kohya-ss (lora_A, lora.down, lora_down)"
        raise InvalidError(msg)
    _check_pairs(header, downs)
    ranks = {tensor.shape[0] for tensor in downs.values()}
    if not 1 <= min(ranks) <= max(ranks) <= _MAX_RANK:
        msg = f"the LoRA has ranks from {min(ranks)} to {max(ranks)}; 1 to {_MAX_RANK} are allowed"
        raise InvalidError(msg)
    meta = header.metadata
    return LoraInfo(
        engine=_engine(meta, downs),
        key_format=_key_format(downs),
        rank=max(ranks),
        data_type=data_type({tensor.dtype for tensor in downs.values()}, "the LoRA's"),
        trigger_words=_trigger_words(meta),
        base_sha256=_matching(_SHA256, meta.get("base_sha256")),
        shape_class=_matching(_SHAPE_CLASS, meta.get("shape_class")) or _full_size(downs),
        has_text_encoder=any("text_encoder" in name or name.startswith("lora_te") for name in downs),
    )


def _check_pairs(header: Header, downs: dict[str, Tensor]) -> None:
    """Raise InvalidError unless every tensor is half of a pair with one rank, or a scale of one.

    This refuses a whole model with LoRA weights in it, and stray tensors.
    """
    ups = {_UP.sub("", name): tensor for name, tensor in header.tensors.items() if _UP.search(name)}
    for name, down in downs.items():
        up = ups.pop(_DOWN.sub("", name), None)
        if up is None or len(up.shape) < 2 or len(down.shape) < 2 or up.shape[1] != down.shape[0]:  # noqa: PLR2004
            msg = f"the LoRA's {name[:200]!r} has no counterpart with its rank; upload the whole file"
            raise InvalidError(msg)
    strays = [n for n in header.tensors if not (_DOWN.search(n) or _UP.search(n) or _OTHER.search(n))]
    if ups or strays:
        msg = f"the file has {min([*ups, *strays])[:200]!r}, which is no part of a LoRA"
        raise InvalidError(msg)


def _key_format(downs: dict[str, Tensor]) -> KeyFormat:
    first = next(iter(downs))
    if first.startswith("base_model.model."):
        return KeyFormat.PEFT
    return KeyFormat.KOHYA if first.startswith("lora_") else KeyFormat.DIFFUSERS


def _full_size(downs: dict[str, Tensor]) -> str | None:
    """Return the shape class of the published checkpoint of the LoRA's engine, as its shapes tell it."""
    engine = _engine({}, downs)
    return FULL_SIZE_SHAPES[engine] if engine else None


def _engine(metadata: dict[str, str], downs: dict[str, Tensor]) -> Engine | None:
    told = metadata.get("engine")
    if told in set(Engine):
        return Engine(told)
    features = {tensor.shape[1] for name, tensor in downs.items() if _CROSS_ATTENTION.search(name)}
    if features == {_SD2_FEATURES}:
        msg = "the LoRA is for Stable Diffusion 2: its cross-attention has 1024 features; 768 (SD 1.5) or 2048 (SDXL) are needed"
        raise InvalidError(msg)
    if len(features) == 1:
        return _FEATURES.get(features.pop())
    # Without cross-attention, a second text encoder tells SDXL.
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
    """Return the tags that every caption of a folder has: the words that a LoRA of kohya-ss was trained with.

    `ss_tag_frequency` has the number of each tag in a folder's captions, `ss_dataset_dirs` the number of its images.
    """
    frequencies, folders = (_document(metadata.get(key)) for key in ("ss_tag_frequency", "ss_dataset_dirs"))
    common: list[str] = []
    for folder, tags in frequencies.items():
        images = _object(folders.get(folder)).get("img_count")
        if isinstance(images, int) and images > 0:
            common += [tag.strip() for tag, times in _object(tags).items() if isinstance(times, int) and times >= images]
    return [word for word in dict.fromkeys(common) if _WORD.fullmatch(word)][:_MAX_WORDS]


def _matching(pattern: re.Pattern[str], text: str | None) -> str | None:
    """Return a value of the metadata that has the form of ours; other programs may write anything under its name."""
    return text if text and pattern.fullmatch(text) else None


def _document(text: str | None) -> dict[str, Any]:
    try:
        return strict_json.load_object((text or "{}").encode(errors="replace"), "the metadata")
    except InvalidError:
        return {}


def _object(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
