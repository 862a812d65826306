"""What a LoRA's header tells, in each of the three layouts, and what is refused."""

import json
import random
from pathlib import Path

import pytest

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats.lora.info import read_lora
from shared.formats.lora.names import KeyFormat
from tests.support.upload_world import lora, safetensors

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
KOHYA = f"lora_unet_{BLOCK.replace('.', '_')}"


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("shapes", "key_format"),
    [
        ({f"unet.{BLOCK}.attn2.to_k.lora.down.weight": [8, 768], f"unet.{BLOCK}.attn2.to_k.lora.up.weight": [320, 8]}, KeyFormat.DIFFUSERS),
        ({f"unet.{BLOCK}.attn2.to_k.lora_A.weight": [8, 768], f"unet.{BLOCK}.attn2.to_k.lora_B.weight": [320, 8]}, KeyFormat.DIFFUSERS),
        ({f"base_model.model.{BLOCK}.attn2.to_v.lora_A.weight": [8, 768], f"base_model.model.{BLOCK}.attn2.to_v.lora_B.weight": [320, 8]}, KeyFormat.PEFT),
        ({f"{KOHYA}_attn2_to_k.lora_down.weight": [8, 768], f"{KOHYA}_attn2_to_k.lora_up.weight": [320, 8], f"{KOHYA}_attn2_to_k.alpha": []}, KeyFormat.KOHYA),
    ],
)  # fmt: skip
def test_each_layout_is_recognised(tmp_path: Path, shapes: dict[str, list[int]], key_format: KeyFormat) -> None:
    info = read_lora(_write(tmp_path, safetensors(shapes)))

    assert (info.key_format, info.engine, info.rank, info.data_type) == (key_format, Engine.SD15, 8, "fp16")
    assert not info.has_text_encoder


def test_the_features_of_cross_attention_tell_sdxl(tmp_path: Path) -> None:
    assert read_lora(_write(tmp_path, lora(features=2048))).engine is Engine.SDXL


def test_the_metadata_tells_what_shapes_do_not(tmp_path: Path) -> None:
    info = read_lora(_write(tmp_path, lora(features=128, metadata={"engine": str(Engine.SDXL), "trigger_word": "sks1"})))

    assert (info.engine, info.trigger_words) == (Engine.SDXL, ["sks1"])


def test_an_unknown_width_tells_nothing(tmp_path: Path) -> None:
    assert read_lora(_write(tmp_path, lora(features=128))).engine is None


FEED_FORWARD = {f"{KOHYA}_ff_net_2.lora_down.weight": [4, 1280], f"{KOHYA}_ff_net_2.lora_up.weight": [320, 4]}


@pytest.mark.parametrize(
    ("metadata", "engine"),
    [
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, Engine.SD15),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, Engine.SDXL),
        ({"ss_base_model_version": "sd_v1"}, Engine.SD15),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, Engine.SDXL),
        ({}, None),
    ],
)
def test_without_cross_attention_the_metadata_tells_the_engine(
    tmp_path: Path, metadata: dict[str, str], engine: Engine | None
) -> None:
    assert read_lora(_write(tmp_path, safetensors(FEED_FORWARD, metadata))).engine is engine


@pytest.mark.parametrize(
    "metadata", [{"ss_base_model_version": "sd_v2_768_v"}, {"modelspec.architecture": "stable-diffusion-v2/lora"}]
)
def test_the_metadata_tells_stable_diffusion_2(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidError, match="for Stable Diffusion 2: its metadata has"):
        read_lora(_write(tmp_path, safetensors(FEED_FORWARD, metadata)))


def test_the_text_encoder_tells_stable_diffusion_2(tmp_path: Path) -> None:
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    shapes = {f"{name}.lora_down.weight": [4, 1024], f"{name}.lora_up.weight": [1024, 4]}

    with pytest.raises(InvalidError, match="for Stable Diffusion 2, whose text encoder is 1024 wide"):
        read_lora(_write(tmp_path, safetensors(shapes)))


def test_the_shapes_decide_before_the_metadata(tmp_path: Path) -> None:
    assert read_lora(_write(tmp_path, lora(metadata={"ss_base_model_version": "sdxl_base_v1-0"}))).engine is Engine.SD15


COUNTS = {"10_sks dog": {"sks dog": 4, "on grass": 1, "sitting": 4}, "1_reg": {"dog": 7}}
FOLDERS = {"10_sks dog": {"n_repeats": 10, "img_count": 4}, "1_reg": {"n_repeats": 1, "img_count": 9}}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"trigger_word": "sks1", "modelspec.trigger_phrase": "other"}, ["sks1"]),
        ({"modelspec.trigger_phrase": " sks dog "}, ["sks dog"]),
        ({"ss_tag_frequency": json.dumps(COUNTS), "ss_dataset_dirs": json.dumps(FOLDERS)}, ["sks dog", "sitting"]),
        ({"ss_tag_frequency": json.dumps(COUNTS)}, []),
        ({"ss_tag_frequency": "[" * 100_000, "ss_dataset_dirs": "no JSON"}, []),
        ({"ss_tag_frequency": json.dumps({"a": 1, "b": {"c": "d"}}), "ss_dataset_dirs": json.dumps({"b": {"img_count": "1"}})}, []),
        ({"ss_tag_frequency": json.dumps({"a": {"x\u0000": 9}}), "ss_dataset_dirs": json.dumps({"a": {"img_count": 9}})}, []),
    ],
)  # fmt: skip
def test_trigger_words_are_those_of_the_metadata_or_the_tags_of_every_caption(
    tmp_path: Path, metadata: dict[str, str], words: list[str]
) -> None:
    assert read_lora(_write(tmp_path, lora(metadata=metadata))).trigger_words == words


def test_a_text_encoder_is_found(tmp_path: Path) -> None:
    name = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
    shapes = {f"{name}.lora_linear_layer.down.weight": [4, 1280], f"{name}.lora_linear_layer.up.weight": [1280, 4]}

    info = read_lora(_write(tmp_path, safetensors(shapes, dtype="F32")))

    assert (info.engine, info.has_text_encoder, info.data_type) == (Engine.SDXL, True, "fp32")


Q = f"unet.{BLOCK}.attn1.to_q"
FLUX = "FLUX or another model of its kind"


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({f"{Q}.lora_A.weight": [4, 320]}, "no counterpart .up is missing"),
        ({f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 2]}, "no counterpart with its rank"),
        ({f"{Q}.lora_A.weight": [4], f"{Q}.lora_B.weight": [320, 4]}, "no counterpart with its rank"),
        ({f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 4], "unet.b.weight": [1]}, "'unet.b.weight', which is no part"),
        ({f"{Q}.lora_A.weight": [2000, 1], f"{Q}.lora_B.weight": [1, 2000]}, "the rank 2000; 1 to 1024"),
        ({f"{Q}.lora_A.a.weight": [4, 320], f"{Q}.lora_B.b.weight": [320, 4]}, "2 adapters .a, b."),
        ({f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 4], f"{KOHYA}_attn1_to_q.lora_down.weight": [2, 320]}, "in two ways"),
        ({f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 4], f"{Q}.hada_w1_a": [320, 4]}, "LoHa and LoRA at once"),
        ({f"{KOHYA}_attn1_to_q.hada_w1_a": [4, 8]}, "no counterpart .hada_w1_b is missing"),
        ({f"{KOHYA}_attn1_to_q.lokr_w1": [4, 8]}, "no counterpart .lokr_w2_a is missing"),
        ({f"{KOHYA}_attn1_to_q.dora_scale": [320, 1]}, "no LoRA that it scales"),
        ({f"{KOHYA}_attn1_to_q.alpha": []}, "no LoRA weights"),
        ({f"{KOHYA}_attn1_to_q.oft_blocks": [4, 8, 8]}, "OFT, which is not supported"),
        ({f"{KOHYA}_attn1_to_q.on_input": [8]}, "IA3, which is not supported"),
        ({"unet.down_blocks.7.attn.to_q.lora_A.weight": [4, 8]}, "for a module that Stable Diffusion 1.5 and SDXL do not have"),
        ({"transformer.single_transformer_blocks.0.proj.lora_A.weight": [4, 8]}, FLUX),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": [4, 8]}, FLUX),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": [4, 8]}, "Stable Diffusion 3"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": [4, 8]}, "FLUX or Stable Diffusion 3"),
        ({"lora_unet_blocks_0_attn_q.lora_down.weight": [4, 8]}, "Hunyuan-DiT"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": [4, 8]}, "Wan video"),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": [4, 8]}, "a language model"),
        ({"emb_params": [1, 768]}, "a textual inversion"),
        ({"model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3]}, "a checkpoint"),
        ({f"unet.{BLOCK}.attn2.to_k.lora_A.weight": [4, 1024], f"unet.{BLOCK}.attn2.to_k.lora_B.weight": [320, 4]}, "Stable Diffusion 2"),
        ({f"unet.{BLOCK}.attn2.to_k.lora_A.weight": [4, 768], f"unet.{BLOCK}.attn2.to_k.lora_B.weight": [640, 4]}, "640 x 768; unet.* has 320 x 768"),
        ({"bundle_emb.word.other": [1, 768]}, "no textual inversion"),
    ],
)  # fmt: skip
def test_what_is_not_a_lora_is_refused(tmp_path: Path, shapes: dict[str, list[int]], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        read_lora(_write(tmp_path, safetensors(shapes)))


def _with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(7),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        _with_header({"a": {"dtype": "F16", "shape": [-2, -2], "data_offsets": [0, 8]}}),
        _with_header({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 7]}}),
        _with_header({"a": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}),
        _with_header({"a": {"dtype": "F16", "shape": [10**30], "data_offsets": [0, 8]}}),
        _with_header({"a": {"dtype": "Q4", "shape": [8], "data_offsets": [0, 8]}}),
        _with_header({"__metadata__": {"a": 1}, "b": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}),
        _with_header({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidError):
        read_lora(_write(tmp_path, content))


def test_a_damaged_header_is_read_or_refused(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    good = lora(metadata={"trigger_word": "sks1"})
    length = 8 + int.from_bytes(good[:8], "little")
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(length)] = chance.randrange(256)
        try:
            read_lora(_write(tmp_path, bytes(damaged)))
        except InvalidError as error:
            assert error.message


def test_a_lora_trained_elsewhere_is_for_the_published_checkpoint(tmp_path: Path) -> None:
    assert read_lora(_write(tmp_path, lora(features=768))).shape_class == FULL_SIZE_SHAPES[Engine.SD15]
    assert read_lora(_write(tmp_path, lora(features=2048))).shape_class == FULL_SIZE_SHAPES[Engine.SDXL]
    assert read_lora(_write(tmp_path, lora(features=128))).shape_class is None
    assert read_lora(_write(tmp_path, lora(metadata={"shape_class": "sd15-3f2a9c1d"}))).shape_class == "sd15-3f2a9c1d"


def _lora_with(dtype: str, values: bytes) -> bytes:
    """Return a LoRA whose last weights are these bytes."""
    shapes = {f"{Q}.lora_A.weight": [1, 320], f"{Q}.lora_B.weight": [320, 1]}
    file = safetensors(shapes, dtype=dtype)
    return file[: -len(values)] + values


NOT_FINITE = {
    "F16": [bytes((0, 0x7C)), bytes((0, 0xFC)), bytes((1, 0x7E)), bytes((1, 0xFC))],
    "BF16": [bytes((0x80, 0x7F)), bytes((0x80, 0xFF)), bytes((0xC0, 0x7F))],
    "F32": [bytes((0, 0, 0x80, 0x7F)), bytes((0, 0, 0x80, 0xFF)), bytes((1, 0, 0xC0, 0x7F))],
}
FINITE = {
    "F16": [bytes((0xFF, 0x7B)), bytes((0xFF, 0xFB))],
    "BF16": [bytes((0x7F, 0x7F)), bytes((0x80, 0x7E))],
    "F32": [bytes((0xFF, 0xFF, 0x7F, 0x7F)), bytes((0, 0, 0x80, 0xFE))],
}


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_values_must_be_finite(tmp_path: Path, dtype: str) -> None:
    for values in FINITE[dtype]:
        read_lora(_write(tmp_path, _lora_with(dtype, values)))
    for values in NOT_FINITE[dtype]:
        with pytest.raises(InvalidError, match=r"to_q\.lora_B\.weight' has values that are not finite"):
            read_lora(_write(tmp_path, _lora_with(dtype, values)))


def test_alpha_must_be_one_finite_number(tmp_path: Path) -> None:
    shapes = {f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 4], f"{Q}.alpha": []}
    read_lora(_write(tmp_path, safetensors(shapes)))
    with pytest.raises(InvalidError, match=r"alpha' has the type F16 and the shape .0.; one finite number"):
        read_lora(_write(tmp_path, safetensors(shapes | {f"{Q}.alpha": [0]})))
    file = safetensors(shapes)
    with pytest.raises(InvalidError, match="one finite number"):
        read_lora(_write(tmp_path, file[:-2] + bytes((0, 0x7E))))


def test_the_words_of_bundled_textual_inversions_are_trigger_words(tmp_path: Path) -> None:
    shapes = {f"{Q}.lora_A.weight": [4, 320], f"{Q}.lora_B.weight": [320, 4], "bundle_emb.<mine>.string_to_param.*": [2, 768]}

    assert read_lora(_write(tmp_path, safetensors(shapes, {"trigger_word": "sks1"}))).trigger_words == ["sks1", "<mine>"]
