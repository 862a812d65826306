"""Compares the weights of a model folder with its configuration, tensor by tensor, by the headers of their files."""

from collections.abc import Mapping
from typing import Any, BinaryIO

from shared.errors import InvalidError
from shared.formats import diffusers_layout, ldm_layout, ldm_shapes, vae
from shared.formats.files import window
from shared.formats.ldm_layout import Shapes
from shared.formats.safetensors import Tensor, data_type, read_header
from shared.formats.tar import Member

_INTEGERS = {"I64", "I32"}
_AGAIN = "download the model again and pack its folder"


def check(file: BinaryIO, files: Mapping[str, Member], configs: Mapping[str, dict[str, Any]]) -> str:
    """Return the data type of the UNet, `fp16` or `fp32`.

    `files` are the model's, by their path; `configs` the configuration of each part. Raises InvalidError for weights that are
    damaged, or are not those that the configuration describes.
    """
    types: dict[str, str] = {}
    for part, config in configs.items():
        found = tensors(file, files, f"{part}/")
        types[part] = data_type({tensor.dtype for tensor in found.values()} - _INTEGERS, f"the checkpoint's {part}:")
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if not name.endswith(ldm_shapes.IGNORED)}
        if difference := _difference(part, config, shapes):
            msg = f"the checkpoint's {part} is not the one that {part}/config.json describes: {difference}; {_AGAIN}"
            raise InvalidError(msg)
    return types["unet"]


def tensors(file: BinaryIO, files: Mapping[str, Member], folder: str = "") -> dict[str, Tensor]:
    """Return the tensors of all weights in a folder of the model. Raises InvalidError for a damaged file."""
    found: dict[str, Tensor] = {}
    for name, member in files.items():
        if name.startswith(folder) and name.endswith(".safetensors"):
            try:
                found |= read_header(window(file, member.start, member.size)).tensors
            except InvalidError as error:
                msg = f"{name}: {error.message}; {_AGAIN}"
                raise InvalidError(msg) from error
    return found


def _difference(part: str, config: dict[str, Any], shapes: Shapes) -> str | None:
    if part == "vae":
        try:
            vae.check({vae.original_name(name, len(config["block_out_channels"])): shape for name, shape in shapes.items()})
        except InvalidError as error:
            return error.message
        return None
    if part == "unet":
        wanted = diffusers_layout.unet(config)
    else:
        wanted = diffusers_layout.text_encoder(config, has_projection=part == "text_encoder_2")
        # Files of newer versions of transformers may leave this prefix out.
        shapes = {_with_prefix(name): shape for name, shape in shapes.items()}
    return None if wanted is None else min(ldm_layout.differences(wanted, shapes), default=None)


def _with_prefix(name: str) -> str:
    return name if name.startswith("text_projection.") else ldm_shapes.clip_name(name)
