"""What intake tells of a LoRA file, and refuses: every value is checked here, so that a worker can draw with what is accepted."""

import re
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats import mistaken
from shared.formats.files import Source, opened
from shared.formats.lora import families, metadata, published, reader
from shared.formats.lora.adapters import Adapter, rank_of
from shared.formats.lora.names import KeyFormat, Part
from shared.formats.safetensors import data_type
from shared.formats.values import check_finite

_FEATURES = {768: Engine.SD15, 2048: Engine.SDXL}
"""Cross-attention keys are projected from 768 features in SD 1.5 and from 2048 in SDXL."""
_CROSS_ATTENTION = re.compile(r"\.attn2\.to_[kv]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHAPE_CLASS = re.compile(r"[a-z0-9_-]{1,100}")


class LoraInfo(BaseModel):
    """What a LoRA file tells; None or empty where it does not tell."""

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
    """Read and check a LoRA file. Raises InvalidError that says why it is not one, or cannot be drawn with."""
    mistaken.check(source, "weights")
    with opened(source) as file:
        lora = reader.read(file)
        names = {name for change in (*lora.adapters, *lora.bundles) for name in change.names}
        types = {lora.header.tensors[name].dtype for name in names}
        told = lora.header.metadata
        engine, shape_class = made_for(lora)
        found = data_type(types, "the LoRA's")
        check_finite(file, lora.header, "the LoRA's")
    return LoraInfo(
        engine=engine,
        key_format=lora.key_format,
        rank=max(map(rank_of, lora.adapters)),
        data_type=found,
        trigger_words=list(dict.fromkeys([*metadata.trigger_words(told), *(bundle.word for bundle in lora.bundles)])),
        base_sha256=_matching(_SHA256, told.get("base_sha256")),
        shape_class=shape_class,
        has_text_encoder=any(adapter.part is not Part.UNET for adapter in lora.adapters),
    )


def made_for(lora: reader.Lora) -> tuple[Engine | None, str | None]:
    """Return the engine and the shape class that a LoRA is for, as far as it tells. Raises InvalidError if it fits none."""
    told = lora.header.metadata
    engine = _engine(told, lora.adapters)
    shape_class = _matching(_SHAPE_CLASS, told.get("shape_class"))
    if shape_class is None and engine is not None and _features(lora.adapters):
        _check_published(lora.adapters, engine)
        shape_class = FULL_SIZE_SHAPES.get(engine)
    return engine, shape_class


def _check_published(adapters: Iterable[Adapter], engine: Engine) -> None:
    if reason := published.misfit(adapters, engine):
        msg = f"the LoRA does not fit the published checkpoint of {engine}: {reason}; choose a LoRA that was made for it"
        raise InvalidError(msg)


def _features(adapters: list[Adapter]) -> set[int]:
    """Return the known widths of the text that cross-attention takes. Raises InvalidError for that of another family."""
    found = {a.size[1] for a in adapters if a.size is not None and a.part is Part.UNET and _CROSS_ATTENTION.search(a.module)}
    families.refuse_features(found)
    for adapter in adapters:
        if adapter.size is not None and adapter.module.endswith("self_attn.q_proj"):
            families.refuse_width(adapter.size[1])
    return found & _FEATURES.keys() if len(found) == 1 else set()


def _engine(told: Mapping[str, str], adapters: list[Adapter]) -> Engine | None:
    features = _features(adapters)
    if told.get("engine") in set(Engine):
        return Engine(told["engine"])
    if features:
        return _FEATURES[features.pop()]
    for key in ("modelspec.architecture", "ss_base_model_version"):
        families.refuse_told(told.get(key, "").lower())
    # Without cross-attention, a second text encoder tells SDXL.
    if any(adapter.part is Part.TEXT_ENCODER_2 for adapter in adapters):
        return Engine.SDXL
    return metadata.engine(dict(told))


def _matching(pattern: re.Pattern[str], text: str | None) -> str | None:
    """Return a value of the metadata that has the form of ours; other programs may write anything under its name."""
    return text if text and pattern.fullmatch(text) else None
