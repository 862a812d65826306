"""Reads a LoRA file of any layout as the changes of its modules, under one name for each module and with alpha folded in.

Intake and the image workers read LoRAs with this module, so what intake accepts is what a worker draws with.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from shared.errors import InvalidError
from shared.formats.files import Source, opened
from shared.formats.lora import bundles, families, names
from shared.formats.lora.adapters import Adapter, build
from shared.formats.lora.bundles import Bundle
from shared.formats.lora.keys import Factor, Key, split
from shared.formats.lora.metadata import Alphas
from shared.formats.lora.names import KeyFormat, Part, part_of
from shared.formats.safetensors import Header, Tensor, data_start, read_header
from shared.formats.values import read_number

_RESNETS = (2, 1, 3, 4)
"""Residual blocks of each level: that of the published checkpoints first."""
_SECOND_WIDTH = 1280
"""The width of SDXL's second text encoder; only it has this width."""
_RELEASED = ("input_blocks", "output_blocks")
_Named = dict[tuple[Part, str], dict[str, dict[Factor, tuple[str, Tensor]]]]
"""For each module its names in the file, each with the tensors under it: some files have two names for each module."""


@dataclass(frozen=True)
class Lora:
    """The changes that a file makes."""

    header: Header
    adapters: list[Adapter]
    key_format: KeyFormat
    bundles: list[Bundle]
    """Textual inversions that come with it."""


def read(source: Source, resnets: int | None = None) -> Lora:
    """Return the changes in a LoRA file. Raises InvalidError that says why it is not one.

    `resnets` is the number of residual blocks of each level of the checkpoint's UNet. Without it, the first number that gives
    a meaning to all names is taken.
    """
    with opened(source) as file:
        header = read_header(file)
        bundled, rest = bundles.split(header.tensors)
        keys = _split(rest)
        _check_one_adapter(keys)
        named = _by_module(header, keys, (resnets,) if resnets else _RESNETS)
        alphas = Alphas(header.metadata)
        adapters = [_adapter(file, module, tensors, alphas) for module, tensors in named.items()]
        first = next(name for name, key in keys.items() if key.factor is not Factor.ALPHA)
        return Lora(header, adapters, part_of(first)[1], bundled)


def _split(tensors: list[str]) -> dict[str, Key]:
    keys = {name: split(name) for name in tensors}
    found = {name: key for name, key in keys.items() if key is not None}
    strays = [name for name in tensors if name not in found]
    if strays:
        families.refuse(strays)
    if not any(key.factor is not Factor.ALPHA for key in found.values()):
        msg = (
            "the file has no LoRA weights: no tensor is named as in diffusers, PEFT, kohya-ss or ComfyUI (lora_A, lora_down); "
            "choose the file of a LoRA"
        )
        raise InvalidError(msg)
    if strays:
        msg = f"the file has {strays[0][:200]!r}, which is no part of a LoRA; save the LoRA alone, without other weights"
        raise InvalidError(msg)
    return found


def _check_one_adapter(keys: dict[str, Key]) -> None:
    adapters = {key.adapter for key in keys.values() if key.adapter is not None}
    if len(adapters) > 1:
        msg = f"the file holds {len(adapters)} adapters ({', '.join(sorted(adapters)[:5])}); save each as a file of its own"
        raise InvalidError(msg)


def _by_module(header: Header, keys: dict[str, Key], candidates: Iterable[int]) -> _Named:
    named: _Named = {}
    unknown: list[str] = []
    for resnets in candidates:
        named, found = _with_resnets(header, keys, resnets)
        if not found:
            return named
        unknown = unknown or found
        if not any(block in name for block in _RELEASED for name in found):
            # The number of blocks does not matter to these names.
            break
    families.refuse(unknown)
    msg = (
        f"the LoRA's {unknown[0][:200]!r} is for a module that Stable Diffusion 1.5 and SDXL do not have; "
        "choose a LoRA that was made for one of them"
    )
    raise InvalidError(msg)


def _with_resnets(header: Header, keys: dict[str, Key], resnets: int) -> tuple[_Named, list[str]]:
    """Return the tensors by module, and the tensors whose module is unknown."""
    named: _Named = defaultdict(lambda: defaultdict(dict))
    unknown: list[str] = []
    for name, key in keys.items():
        part, _, rest = part_of(key.module)
        module = names.unet_module(rest, resnets) if part in {None, Part.UNET} else names.text_module(rest)
        if part is None:
            part = Part.UNET
            if module is None and (module := names.text_module(rest)) is not None:
                part = Part.TEXT_ENCODER_2 if _is_second(header, keys) else Part.TEXT_ENCODER
        elif module is None and key.module.startswith("lycoris_") and (module := names.text_module(rest)) is not None:
            part = Part.TEXT_ENCODER
        if module is None:
            unknown.append(name)
            continue
        same = named[part, module][key.module]
        if key.factor in same:
            msg = f"the LoRA's {name[:200]!r} and {same[key.factor][0][:200]!r} are the same weight under two names; remove one"
            raise InvalidError(msg)
        same[key.factor] = (name, header.tensors[name])
    return named, unknown


def _is_second(header: Header, keys: dict[str, Key]) -> bool:
    """Return whether a file of PEFT, which does not name its text encoder, is for SDXL's second."""
    return any(
        key.factor is Factor.DOWN and key.module.endswith("q_proj") and header.tensors[name].shape[1:2] == [_SECOND_WIDTH]
        for name, key in keys.items()
    )


def _adapter(
    file: BinaryIO,
    place: tuple[Part, str],
    spellings: dict[str, dict[Factor, tuple[str, Tensor]]],
    alphas: Alphas,
) -> Adapter:
    tensors: dict[Factor, tuple[str, Tensor]] = {}
    for some in spellings.values():
        _check_same(file, tensors, some)
        tensors = some | tensors
    part, module = place
    alpha: float | None = None
    rank: float | None = None
    if found := tensors.get(Factor.ALPHA):
        alpha = read_number(file, *found)
    elif (down := tensors.get(Factor.DOWN)) and down[1].shape and (told := alphas.of(part, module, down[1].shape[0])):
        alpha, rank = told
    return build(part, module, tensors, alpha, rank)


def _check_same(file: BinaryIO, one: dict[Factor, tuple[str, Tensor]], other: dict[Factor, tuple[str, Tensor]]) -> None:
    """Raise InvalidError unless a module's tensors under a second name equal those under the first.

    Converters write some modules twice, as `input_blocks` and as `down_blocks`, and mean them once.
    """
    for factor in one.keys() & other.keys():
        (first, tensor), (second, again) = one[factor], other[factor]
        if _bytes(file, tensor) != _bytes(file, again):
            msg = f"the LoRA's {first[:200]!r} and {second[:200]!r} change the same module in two ways; remove one of them"
            raise InvalidError(msg)


def _bytes(file: BinaryIO, tensor: Tensor) -> tuple[str, list[int], bytes]:
    begin, end = tensor.data_offsets
    file.seek(data_start(file) + begin)
    return tensor.dtype, tensor.shape, file.read(end - begin)
