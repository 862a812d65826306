"""Writes a LoRA file in the layout of another program.

kohya-ss's is for AUTOMATIC1111's web UI, ComfyUI, Forge and InvokeAI, diffusers' for diffusers and PEFT. The weights stay as they
are, byte by byte; names, alphas and metadata change.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from pydantic import BaseModel

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats.lora import info, layout_names, reader
from shared.formats.lora.adapters import Adapter, Kind, rank_of
from shared.formats.lora.keys import Factor
from shared.formats.lora.names import Part
from shared.formats.safetensors import Tensor, data_start, header_bytes

_CHUNK_BYTES = 1 << 20
_MATRIX = 2
_INNER = {Part.UNET: "", Part.TEXT_ENCODER: "text_model.", Part.TEXT_ENCODER_2: "text_model."}


class LoraLayout(StrEnum):
    """The layout of a LoRA file."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"


class Converted(BaseModel):
    """What was written."""

    tensors: int


@dataclass(frozen=True)
class _Piece:
    """A tensor of the new file: bytes of the old one, or a number."""

    name: str
    dtype: str
    shape: list[int]
    source: tuple[int, int] | None = None
    value: float = 0.0

    def read(self, file: BinaryIO, start: int) -> Iterator[bytes]:
        if self.source is None:
            yield struct.pack("<f", self.value)
            return
        begin, end = self.source
        file.seek(start + begin)
        while begin < end:
            chunk = file.read(min(_CHUNK_BYTES, end - begin))
            begin += len(chunk)
            yield chunk

    @property
    def size(self) -> int:
        return self.source[1] - self.source[0] if self.source else 4


def convert(source: BinaryIO, target: BinaryIO, layout: str, added: Mapping[str, str]) -> Converted:
    """Write the LoRA to `target` in a layout, with more metadata. Raises InvalidError for what the layout has no names for.

    The metadata of the file is kept where `added` and the layout do not replace it.
    """
    lora = reader.read(source)
    engine, shape_class = info.made_for(lora)
    names = layout_names.Names(engine or Engine.SD15, is_full=shape_class in FULL_SIZE_SHAPES.values())
    pieces: list[_Piece] = []
    metadata = {key: value for key, value in lora.header.metadata.items() if key != "lora_adapter_metadata"}
    if lora.bundles and layout == LoraLayout.DIFFUSERS:
        msg = f"the LoRA brings the textual inversion {lora.bundles[0].word!r}, which diffusers' layout has no place for"
        raise _impossible(msg, LoraLayout.KOHYA)
    for bundle in lora.bundles:
        pieces += [_copied(name, lora.header.tensors[name]) for name in bundle.names]
    for adapter in lora.adapters:
        pieces += _kohya(adapter, names, lora) if layout == LoraLayout.KOHYA else _diffusers(adapter, lora)
    if layout == LoraLayout.DIFFUSERS:
        metadata |= {"lora_adapter_metadata": json.dumps(_peft_config(lora.adapters), indent=2, sort_keys=True)}
    else:
        metadata |= {"modelspec.sai_model_spec": "1.0.0", "ss_network_module": _network(lora.adapters)}
        metadata |= {"ss_network_dim": str(max(map(rank_of, lora.adapters)))} | layout_names.families(engine)
    _write(source, target, pieces, metadata | dict(added) | {"format": "pt"})
    return Converted(tensors=len(pieces))


def _kohya(adapter: Adapter, names: layout_names.Names, lora: reader.Lora) -> Iterator[_Piece]:
    module = names.kohya(adapter.part, adapter.module)
    for factor, name in adapter.factors.items():
        tensor = lora.header.tensors[name]
        if factor is Factor.UP_BIAS:
            msg = f"the LoRA's {name[:200]!r} is the bias of an up projection, which kohya's layout has no name for"
            raise _impossible(msg, LoraLayout.DIFFUSERS)
        shape = tensor.shape
        if factor is Factor.MAGNITUDE and len(shape) == 1:
            # LyCORIS keeps a row for each output, so that it multiplies the rows of the weight.
            shape = [shape[0], *(1 for _ in range(_sides(adapter) - 1))]
        yield _copied(f"{module}.{layout_names.KOHYA_FACTORS.get(factor, factor)}", tensor, shape)
    if adapter.kind is not Kind.DIFF:
        # Without alpha, readers take the rank for it: the scale would be 1.
        yield _Piece(f"{module}.alpha", "F32", [], value=adapter.scale * rank_of(adapter))


def _diffusers(adapter: Adapter, lora: reader.Lora) -> Iterator[_Piece]:
    for factor, name in adapter.factors.items():
        suffix = layout_names.DIFFUSERS_FACTORS.get(factor)
        if adapter.kind is not Kind.LORA or suffix is None:
            msg = f"the LoRA's {name[:200]!r} is part of a {adapter.kind} with {factor}, which diffusers' layout has no name for"
            raise _impossible(msg, LoraLayout.KOHYA)
        tensor = lora.header.tensors[name]
        shape = [max(tensor.shape)] if factor is Factor.MAGNITUDE else tensor.shape
        inner = "" if adapter.module == "text_projection" else _INNER[adapter.part]
        yield _copied(f"{adapter.part}.{inner}{adapter.module}.{suffix}", tensor, shape)


def _copied(name: str, tensor: Tensor, shape: list[int] | None = None) -> _Piece:
    return _Piece(name, tensor.dtype, tensor.shape if shape is None else shape, tensor.data_offsets)


def _sides(adapter: Adapter) -> int:
    """Return the number of sides of the weight that an adapter changes."""
    return max((len(shape) for factor, shape in adapter.shapes.items() if factor is not Factor.MAGNITUDE), default=_MATRIX)


def _peft_config(adapters: list[Adapter]) -> dict[str, object]:
    """Return PEFT's configuration of each part, which holds the alphas; diffusers reads it from the metadata."""
    config: dict[str, object] = {}
    for part in Part:
        of_part = [adapter for adapter in adapters if adapter.part is part]
        if not of_part:
            continue
        inner = _INNER[part]
        rank = rank_of(of_part[0])
        alpha = of_part[0].scale * rank
        modules = {inner * (adapter.module != "text_projection") + adapter.module: adapter for adapter in of_part}
        values = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {name: rank_of(one) for name, one in modules.items() if rank_of(one) != rank},
            "alpha_pattern": {
                name: one.scale * rank_of(one) for name, one in modules.items() if one.scale * rank_of(one) != alpha
            },
            "target_modules": sorted(modules),
            "use_dora": any(Factor.MAGNITUDE in adapter.factors for adapter in of_part),
            "lora_bias": any(Factor.UP_BIAS in adapter.factors for adapter in of_part),
        }
        config |= {f"{part}.{key}": value for key, value in values.items()}
    return config


def _network(adapters: list[Adapter]) -> str:
    """Return the program's module that makes such a LoRA, as kohya-ss names it."""
    is_plain = all(adapter.kind is Kind.LORA and Factor.MAGNITUDE not in adapter.factors for adapter in adapters)
    return "networks.lora" if is_plain else "lycoris.kohya"


def _write(source: BinaryIO, target: BinaryIO, pieces: list[_Piece], metadata: dict[str, str]) -> None:
    # The format asks for each tensor at a multiple of its size: the alphas, which are single numbers, come last.
    pieces = sorted(pieces, key=lambda piece: (piece.source is None, piece.source or (0, 0)))
    tensors: dict[str, Tensor] = {}
    position = 0
    for piece in pieces:
        tensors[piece.name] = Tensor(dtype=piece.dtype, shape=piece.shape, data_offsets=(position, position + piece.size))
        position += piece.size
    target.write(header_bytes(tensors, metadata))
    start = data_start(source)
    for piece in pieces:
        target.writelines(piece.read(source, start))


def _impossible(why: str, other: LoraLayout) -> InvalidError:
    return InvalidError(f"{why}; download it with format={other}, or leave format out for the file as it is")
