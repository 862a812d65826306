"""Single-file checkpoints in the layout of Stable Diffusion's own releases, read from their safetensors headers without torch.

Such a file has weights but no configuration. Most of the configuration follows from the shapes (widths, levels, layers,
vocabulary). The rest is as in the releases of SD 1.5 and SDXL, unless the metadata says otherwise: `modelspec.prediction_type`
and `modelspec.resolution` (github.com/Stability-AI/ModelSpec), and Tunesmith's own keys (`KEYS`), for models of other sizes.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import ldm_shapes, vae
from shared.formats.clip import tokenizer as clip_tokenizer
from shared.formats.files import Source
from shared.formats.ldm_layout import TextShape
from shared.formats.ldm_shapes import Parts
from shared.formats.safetensors import Header, read_header

WEIGHTS = "model.safetensors"
"""The file's name in an unpacked checkpoint, which also has the configuration that was inferred for it."""
_HEAD_WIDTH = 64
_FULL_WIDTH = 320
"""The first width of the UNets of both releases; models with narrower ones are small."""
_SMALL_PX = 64
_NATIVE_PX = {Engine.SD15: 512, Engine.SDXL: 1024, Engine.SDXL_REFINER: 1024}
_SCALING = {Engine.SD15: 0.18215, Engine.SDXL: 0.13025, Engine.SDXL_REFINER: 0.13025}
_PIPELINES = {
    Engine.SD15: "StableDiffusionPipeline",
    Engine.SDXL: "StableDiffusionXLPipeline",
    Engine.SDXL_REFINER: "StableDiffusionXLImg2ImgPipeline",
}
_V_PREDICTION = {"v", "v_prediction", "v-prediction"}


def read(source: Source) -> tuple[dict[str, dict[str, Any]], str]:
    """Return a checkpoint's configuration, as documents by their paths in diffusers' layout, and its data type.

    Raises InvalidError that says why the file is no such checkpoint.
    """
    try:
        header = read_header(source)
    except InvalidError as error:
        msg = f"the checkpoint is neither an uncompressed tar of a model folder nor a single safetensors file: {error.message}"
        raise InvalidError(msg) from error
    return describe(header), vae.weights_type(header, "the checkpoint's")


def describe(header: Header) -> dict[str, dict[str, Any]]:
    """Return the configuration of the checkpoint with this header. Raises InvalidError."""
    parts = ldm_shapes.read(header)
    native = _native_px(parts, header.metadata)
    engine = parts.engine
    documents = {
        "unet/config.json": _unet(parts, header, native),
        "vae/config.json": _vae(parts, header.metadata, native),
        "scheduler/scheduler_config.json": _scheduler(header),
    }
    names = {"scheduler": "DDIMScheduler"}
    index: dict[str, Any] = {"_class_name": _PIPELINES[engine]}
    if engine in ldm_shapes.CLIP:
        documents["text_encoder/config.json"] = _text(parts.texts[0], "text_encoder", header.metadata, projected=False)
        names |= {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    if engine in ldm_shapes.OPEN_CLIP:
        documents["text_encoder_2/config.json"] = _text(parts.texts[-1], "text_encoder_2", header.metadata, projected=True)
        names |= {"text_encoder_2": "CLIPTextModelWithProjection", "tokenizer_2": "CLIPTokenizer"}
        zeros = _told(header.metadata, "tunesmith.force_zeros_for_empty_prompt", default=engine is Engine.SDXL)
        index |= {"force_zeros_for_empty_prompt": zeros, "requires_aesthetics_score": engine is Engine.SDXL_REFINER}
    names |= {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    libraries = {"CLIPTextModel": "transformers", "CLIPTextModelWithProjection": "transformers", "CLIPTokenizer": "transformers"}
    index |= {part: [libraries.get(name, "diffusers"), name] for part, name in names.items()}
    return documents | {"model_index.json": index}


def unpack(path: Path, folder: Path, documents: Mapping[str, dict[str, Any]]) -> None:
    """Make a folder of the file, its inferred configuration (as `read` returns it) and its tokenizers."""
    write_documents(folder, documents)
    for encoder, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        if config := documents.get(f"{encoder}/config.json"):
            clip_tokenizer.write_for(folder / tokenizer, config)
    # A hard link, because a copy of several gigabytes takes long.
    (folder / WEIGHTS).hardlink_to(path)


def write_documents(folder: Path, documents: Mapping[str, dict[str, Any]]) -> None:
    """Write configuration into a folder, by its paths."""
    for name, document in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document, indent=2))


def _unet(parts: Parts, header: Header, native_px: int) -> dict[str, Any]:
    shape, metadata = parts.unet, header.metadata
    numbers = ldm_shapes.NUMBERS.get(parts.engine)
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.depths]
    # diffusers gives the middle block the last level's number of transformer blocks, even if that level has none.
    depths = [max(1, depth) for depth in shape.depths[:-1]] + [shape.middle_depth]
    # SD 1.5 has eight heads on every level; SDXL has heads of a fixed width.
    heads: int | list[int] = [max(1, width // _HEAD_WIDTH) for width in shape.channels] if numbers else 8
    heads = _told(metadata, "tunesmith.unet.attention_head_dim", default=heads)
    per_level = heads if isinstance(heads, list) else [heads] * len(shape.channels)
    groups = _told(metadata, "tunesmith.unet.norm_num_groups", default=32)
    if len(per_level) != len(shape.channels) or any(
        width % count for width, count in zip(shape.channels, per_level, strict=False)
    ):
        msg = (
            f"the UNet's widths {list(shape.channels)} cannot be split into {per_level} heads; "
            "set tunesmith.unet.attention_head_dim in the metadata"
        )
        raise InvalidError(msg)
    if any(width % groups for width in shape.channels):
        msg = (
            f"the UNet's widths {list(shape.channels)} cannot be split into {groups} groups; "
            "set tunesmith.unet.norm_num_groups in the metadata"
        )
        raise InvalidError(msg)
    added: dict[str, Any] = {}
    if numbers:
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": ((shape.added or 0) - parts.texts[-1].width) // numbers,
            "projection_class_embeddings_input_dim": shape.added,
        }
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": native_px // 2 ** (len(parts.vae.channels) - 1),
        "in_channels": shape.in_channels,
        "out_channels": shape.in_channels,
        "down_block_types": down,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(down)],
        "block_out_channels": list(shape.channels),
        "layers_per_block": shape.resnets,
        "transformer_layers_per_block": depths if max(depths) > 1 else 1,
        "cross_attention_dim": shape.context,
        "attention_head_dim": heads,
        "norm_num_groups": groups,
        "use_linear_projection": shape.linear,
        **added,
    }


def _vae(parts: Parts, metadata: Mapping[str, str], native_px: int) -> dict[str, Any]:
    scaling = _told(metadata, "tunesmith.vae.scaling_factor", default=_SCALING[parts.engine])
    config = vae.config(parts.vae, metadata)
    return config | {"_class_name": "AutoencoderKL", "sample_size": native_px, "scaling_factor": scaling}


def _text(shape: TextShape, part: str, metadata: Mapping[str, str], *, projected: bool) -> dict[str, Any]:
    clip_tokenizer.check(shape.vocabulary)
    heads = _told(metadata, f"tunesmith.{part}.num_attention_heads", default=max(1, shape.width // _HEAD_WIDTH))
    if shape.width % heads:
        msg = (
            f"{part}: a width of {shape.width} cannot be split into {heads} heads; "
            f"set tunesmith.{part}.num_attention_heads in the metadata"
        )
        raise InvalidError(msg)
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "projection_dim": shape.width,
        "hidden_act": _told(metadata, f"tunesmith.{part}.hidden_act", default="gelu" if projected else "quick_gelu"),
        "layer_norm_eps": 1e-5,
        "bos_token_id": shape.vocabulary - 2,
        "eos_token_id": shape.vocabulary - 1,
        "pad_token_id": shape.vocabulary - 1,
    }


def _scheduler(header: Header) -> dict[str, Any]:
    """Return Stable Diffusion's noise schedule, with epsilon prediction unless the file says v-prediction."""
    told = header.metadata.get("modelspec.prediction_type", "").lower()
    # In files of SDXL without metadata, an empty tensor of this name marks v-prediction.
    v_prediction = told in _V_PREDICTION or (not told and "v_pred" in header.tensors)
    if found := next((name for name in header.tensors if name.startswith("edm_")), None):
        msg = (
            f"the checkpoint was trained with the noise levels of EDM (it has {found!r}), which are not supported; use one that "
            "predicts epsilon or v on Stable Diffusion's noise schedule"
        )
        raise InvalidError(msg)
    if not v_prediction:
        return schedule()
    # Another marks a schedule that ends in pure noise. Predicting the noise of pure noise says nothing, so it belongs to v alone.
    zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in header.tensors else {}
    return schedule("v_prediction") | zero_snr


def schedule(prediction_type: str = "epsilon") -> dict[str, Any]:
    """Return the noise schedule of Stable Diffusion's releases, as diffusers' configuration."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction_type,
    }


def _native_px(parts: Parts, metadata: Mapping[str, str]) -> int:
    """Return the side of the images that it was trained on: that of the metadata, or its engine's."""
    small = parts.unet.channels[0] < _FULL_WIDTH
    default = _SMALL_PX if small else _NATIVE_PX[parts.engine]
    told = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("modelspec.resolution", ""))
    # Tools write many forms here; anything but a square in pixels is ignored.
    if told is None or told[1] != told[2]:
        return default
    side, factor = int(told[1]), 2 ** (len(parts.vae.channels) + len(parts.unet.channels) - 2)
    return side if side % factor == 0 and side <= 2 * _NATIVE_PX[Engine.SDXL] else default


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read_whole(text: str) -> int:
        if not re.fullmatch(r"\d{1,5}", text) or not least <= int(text) <= most:
            msg = f"a number from {least} to {most}"
            raise ValueError(msg)
        return int(text)

    return read_whole


def _heads(text: str) -> int | list[int]:
    numbers = [_whole(1, 256)(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _scale(text: str) -> float:
    if not re.fullmatch(r"\d{1,2}\.\d{1,20}", text) or not 0.001 <= float(text) <= 10:  # noqa: PLR2004 - SD's are 0.13 to 0.19
        msg = "a number from 0.001 to 10.0"
        raise ValueError(msg)
    return float(text)


def _word(*known: str) -> Callable[[str], str]:
    def read_word(text: str) -> str:
        if text not in known:
            msg = " or ".join(known)
            raise ValueError(msg)
        return text

    return read_word


KEYS: dict[str, Callable[[str], Any]] = {
    "tunesmith.unet.attention_head_dim": _heads,
    "tunesmith.unet.norm_num_groups": _whole(1, 256),
    "tunesmith.vae.scaling_factor": _scale,
    "tunesmith.text_encoder.num_attention_heads": _whole(1, 256),
    "tunesmith.text_encoder.hidden_act": _word("quick_gelu", "gelu"),
    "tunesmith.text_encoder_2.num_attention_heads": _whole(1, 256),
    "tunesmith.text_encoder_2.hidden_act": _word("quick_gelu", "gelu"),
    "tunesmith.force_zeros_for_empty_prompt": lambda text: _word("true", "false")(text) == "true",
}
"""The metadata that tells what shapes do not, with a reader each; `vae` reads `tunesmith.vae.norm_num_groups`."""


def _told(metadata: Mapping[str, str], key: str, *, default: Any) -> Any:
    text = metadata.get(key)
    if text is None:
        return default
    try:
        return KEYS[key](text)
    except ValueError as error:
        msg = f"the metadata's {key} is {text[:50]!r}; {error} is needed"
        raise InvalidError(msg) from error
