"""The published checkpoints are recognised by the shapes in their headers, and other files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats import checkpoint, ldm_layout, single_file
from shared.formats.ldm_layout import Shapes, TextShape, UNetShape, VaeShape
from shared.formats.safetensors import Header, Tensor
from tests.support.upload_world import lora, safetensors

CLIP_L = ldm_layout.clip(TextShape(49_408, 77, 768, 3072, 12))
CLIP_G = ldm_layout.open_clip(TextShape(49_408, 77, 1280, 5120, 32))
VAE = ldm_layout.vae(VaeShape(4, (128, 256, 512, 512), 2, True, True))
SD15 = ldm_layout.unet(UNetShape(4, (320, 640, 1280, 1280), 2, (1, 1, 1, 0), 1, 768, None, False))
SDXL = ldm_layout.unet(UNetShape(4, (320, 640, 1280), 2, (0, 2, 10), 10, 2048, 2816, True))
REFINER = ldm_layout.unet(UNetShape(4, (384, 768, 1536, 1536), 2, (0, 4, 4, 0), 4, 1280, 2560, True))


def _under(**parts: Shapes) -> Shapes:
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text": "cond_stage_model.transformer.",
        "first": "conditioner.embedders.0.transformer.",
        "second": "conditioner.embedders.1.model.",
        "alone": "conditioner.embedders.0.model.",
    }
    return {f"{prefixes[part]}{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


FILES = {
    Engine.SD15: _under(unet=SD15, vae=VAE, text=CLIP_L),
    Engine.SDXL: _under(unet=SDXL, vae=VAE, first=CLIP_L, second=CLIP_G),
    Engine.SDXL_REFINER: _under(unet=REFINER, vae=VAE, alone=CLIP_G),
}


def _header(shapes: Shapes, metadata: dict[str, str] | None = None) -> Header:
    tensors = {name: Tensor(dtype="F16", shape=list(shape), data_offsets=(0, 0)) for name, shape in shapes.items()}
    return Header(metadata=metadata or {}, tensors=tensors)


def _info(documents: dict[str, Any]) -> checkpoint.CheckpointInfo:
    return checkpoint.describe({name: json.dumps(document).encode() for name, document in documents.items()})


def test_sd15_is_recognised() -> None:
    documents = single_file.describe(_header(FILES[Engine.SD15]))
    info, unet = _info(documents), documents["unet/config.json"]

    assert (info.engine, info.native_size_px, info.shape_class) == (Engine.SD15, 512, FULL_SIZE_SHAPES[Engine.SD15])
    assert (info.text_widths, info.latent_channels, info.vae_factor) == ([768], 4, 8)
    assert unet["block_out_channels"] == [320, 640, 1280, 1280]
    assert unet["down_block_types"] == [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3]
    assert (unet["sample_size"], unet["layers_per_block"], unet["cross_attention_dim"]) == (64, 2, 768)
    assert (unet["attention_head_dim"], unet["use_linear_projection"]) == (8, False)
    assert documents["vae/config.json"]["scaling_factor"] == 0.18215
    assert documents["text_encoder/config.json"]["num_attention_heads"] == 12
    assert documents["scheduler/scheduler_config.json"]["prediction_type"] == "epsilon"


def test_sdxl_is_recognised() -> None:
    documents = single_file.describe(_header(FILES[Engine.SDXL]))
    info, unet = _info(documents), documents["unet/config.json"]

    assert (info.engine, info.native_size_px, info.shape_class) == (Engine.SDXL, 1024, FULL_SIZE_SHAPES[Engine.SDXL])
    assert (info.text_widths, info.vae_factor) == ([768, 1280], 8)
    assert (unet["sample_size"], unet["attention_head_dim"], unet["transformer_layers_per_block"]) == (
        128,
        [5, 10, 20],
        [1, 2, 10],
    )
    assert (unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"]) == (256, 2816)
    assert unet["use_linear_projection"] is True
    assert documents["vae/config.json"]["scaling_factor"] == 0.13025
    second = documents["text_encoder_2/config.json"]
    assert (second["num_attention_heads"], second["hidden_act"], second["projection_dim"]) == (20, "gelu", 1280)
    assert documents["model_index.json"]["force_zeros_for_empty_prompt"] is True


def test_sdxls_refiner_is_recognised() -> None:
    documents = single_file.describe(_header(FILES[Engine.SDXL_REFINER]))
    info, unet, index = _info(documents), documents["unet/config.json"], documents["model_index.json"]

    assert (info.engine, info.native_size_px, info.text_widths) == (Engine.SDXL_REFINER, 1024, [1280])
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    assert (unet["attention_head_dim"], unet["transformer_layers_per_block"]) == ([6, 12, 24, 24], [1, 4, 4, 4])
    assert (unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"]) == (256, 2560)
    assert (index["_class_name"], index["requires_aesthetics_score"]) == ("StableDiffusionXLImg2ImgPipeline", True)
    assert index["force_zeros_for_empty_prompt"] is False
    assert "text_encoder" not in index
    assert "text_encoder/config.json" not in documents


def test_a_refiner_with_both_text_encoders_is_refused() -> None:
    documents = single_file.describe(_header(FILES[Engine.SDXL_REFINER]))

    with pytest.raises(InvalidError, match="is a refiner's, which has no text_encoder"):
        _info(documents | {"text_encoder/config.json": documents["text_encoder_2/config.json"]})


def test_the_folder_form_has_the_same_shape_class() -> None:
    # As published: defaults are left out, and numbers are not repeated.
    unet = {
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "sample_size": 64,
    }
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    documents = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": unet,
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder/config.json": text,
    }

    assert _info(documents).shape_class == FULL_SIZE_SHAPES[Engine.SD15]
    documents["unet/config.json"] = unet | {"layers_per_block": [2, 2, 2, 2], "transformer_layers_per_block": 1}
    assert _info(documents).shape_class == FULL_SIZE_SHAPES[Engine.SD15]


@pytest.mark.parametrize(
    ("metadata", "marker", "prediction"),
    [
        ({"modelspec.prediction_type": "v"}, False, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, True, "epsilon"),
        ({}, True, "v_prediction"),
        ({}, False, "epsilon"),
    ],
)
def test_the_metadata_or_a_marker_tells_the_prediction_type(metadata: dict[str, str], marker: bool, prediction: str) -> None:
    shapes = FILES[Engine.SDXL] | ({"v_pred": (0,)} if marker else {})

    documents = single_file.describe(_header(shapes, metadata))

    assert documents["scheduler/scheduler_config.json"]["prediction_type"] == prediction


@pytest.mark.parametrize(("markers", "zero_snr"), [(["v_pred", "ztsnr"], True), (["v_pred"], False), (["ztsnr"], False)])
def test_a_marker_tells_a_schedule_that_ends_in_pure_noise(markers: list[str], zero_snr: bool) -> None:
    documents = single_file.describe(_header(FILES[Engine.SDXL] | dict.fromkeys(markers, (0,))))

    scheduler = documents["scheduler/scheduler_config.json"]
    assert scheduler.get("rescale_betas_zero_snr", False) is zero_snr
    assert (scheduler.get("timestep_spacing") == "trailing") is zero_snr


@pytest.mark.parametrize("marker", ["edm_vpred.sigma_max", "edm_mean"])
def test_the_noise_levels_of_edm_are_refused(marker: str) -> None:
    with pytest.raises(InvalidError, match=f"noise levels of EDM .it has '{marker}'"):
        single_file.describe(_header(FILES[Engine.SDXL] | {marker: (1,)}))


def test_clips_names_may_lack_their_prefix() -> None:
    short = {name.replace(".transformer.text_model.", ".transformer."): shape for name, shape in FILES[Engine.SD15].items()}

    assert single_file.describe(_header(short)) == single_file.describe(_header(FILES[Engine.SD15]))


@pytest.mark.parametrize(("told", "native"), [("768x768", 768), ("512x768", 512), ("huge", 512), ("9000x9000", 512)])
def test_the_metadata_tells_the_native_size(told: str, native: int) -> None:
    documents = single_file.describe(_header(FILES[Engine.SD15], {"modelspec.resolution": told}))

    assert _info(documents).native_size_px == native


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"tunesmith.unet.attention_head_dim": "7"}, "cannot be split into \\[7, 7, 7, 7\\] heads"),
        ({"tunesmith.unet.attention_head_dim": "many"}, "a number from 1 to 256 is needed"),
        ({"tunesmith.unet.norm_num_groups": "64000"}, "a number from 1 to 256 is needed"),
        ({"tunesmith.vae.scaling_factor": "nan"}, "a number from 0.001 to 10.0 is needed"),
        ({"tunesmith.text_encoder.num_attention_heads": "7"}, "cannot be split into 7 heads"),
        ({"tunesmith.text_encoder.hidden_act": "relu"}, "quick_gelu or gelu is needed"),
    ],
)
def test_metadata_out_of_bounds_is_refused(metadata: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        single_file.describe(_header(FILES[Engine.SD15], metadata))


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"cond_stage_model.model.ln_final.bias": (1024,)}, "a Stable Diffusion 2 checkpoint"),
        (_under(unet=SDXL, vae=VAE, alone=CLIP_G), "attends to 2048 text features, but the file's text encoders make 1280"),
        ({"double_blocks.0.img_mod.lin.weight": (1,)}, "a FLUX checkpoint"),
        ({"lora_unet_x.lora_down.weight": (1, 1)}, "the file is a LoRA"),
        ({"x": (1,)}, "the file is something else; a single-file checkpoint of SD 1.5"),
        (_under(unet=SD15, text=CLIP_L), "the checkpoint's VAE: it is not a VAE"),
        (_under(unet=SDXL, vae=VAE, text=CLIP_L), "attends to 2048 text features, but the file's text encoders make 768"),
        (_under(unet=SD15, vae=VAE, first=CLIP_L, second=CLIP_G), "attends to 768 text features, .* make 2048"),
        (_under(unet=SD15, vae=ldm_layout.vae(VaeShape(16, (128, 256), 2, True, False)), text=CLIP_L), "VAE makes 16"),
        (FILES[Engine.SD15] | {"model.diffusion_model.out.2.bias": (5,)}, "'out.2.bias' has the shape \\[5\\]"),
        (_under(unet=SD15, vae=VAE, text=ldm_layout.clip(TextShape(50_000, 77, 768, 3072, 12))), "vocabulary of 50000"),
        (_under(unet=SD15, vae=VAE, text=ldm_layout.clip(TextShape(49_408, 128, 768, 3072, 12))), "128 positions; 1 to 77"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_checkpoint_is_refused_with_the_reason(shapes: Shapes, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        single_file.describe(_header(shapes))


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(600), lora()])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(content)

    with pytest.raises(InvalidError, match=r"tar of a model folder|compressed with gzip"):
        checkpoint.read_file(path)


def test_constants_of_old_files_are_ignored() -> None:
    more: Shapes = {
        "betas": (1000,),
        "model_ema.decay": (),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
    }

    assert single_file.describe(_header(FILES[Engine.SD15] | more)) == single_file.describe(_header(FILES[Engine.SD15]))


def test_a_stray_tensor_alone_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(safetensors({"model.diffusion_model.out.2.bias": [4], "cond_stage_model.transformer.x": [1]}))

    with pytest.raises(InvalidError, match="takes 0 channels"):
        checkpoint.read_file(path)
