"""A LoRA that is written in another program's layout has that program's names, and the same changes."""

import io
import json
import random
import re

import pytest

from shared.engines import FULL_SIZE_SHAPES, Engine
from shared.errors import InvalidError
from shared.formats import ldm_layout
from shared.formats.lora import published, reader
from shared.formats.lora.adapters import Adapter
from shared.formats.lora.info import read_lora
from shared.formats.lora.keys import Factor
from shared.formats.lora.layouts import LoraLayout, convert
from shared.formats.lora.names import KeyFormat, Part
from shared.formats.safetensors import Tensor, data_start, header_bytes, read_header

ALPHA = 3.0
_RELEASED_LAYERS = {
    "norm1": "in_layers_0",
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "norm2": "out_layers_0",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}


def file(shapes: dict[str, list[int]], metadata: dict[str, str] | None = None, seed: int = 0) -> io.BytesIO:
    """Return a safetensors file of random fp16 weights below 1."""
    tensors: dict[str, Tensor] = {}
    position = 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        tensors[name] = Tensor(dtype="F16", shape=shape, data_offsets=(position, position + size))
        position += size
    chance = random.Random(seed)
    weights = bytearray(chance.randbytes(position))
    # The high byte of a half below 1 in size.
    weights[1::2] = bytes(value & 0b10111011 for value in weights[1::2])
    return io.BytesIO(header_bytes(tensors, metadata or {}) + bytes(weights))


def everything(engine: Engine, *, diffs: bool = True) -> io.BytesIO:
    """Return a LoRA of rank 1 for every module of a published checkpoint, in diffusers' names, with changes of the norms."""
    shapes: dict[str, list[int]] = {}
    for (part, module), found in published.modules(engine).items():
        weight = found["weight"]
        name = f"{part}.{module}"
        if len(weight) == 1:
            if diffs:
                shapes |= {f"{name}.diff": list(weight), f"{name}.diff_b": list(weight)}
        else:
            shapes |= {
                f"{name}.lora_A.weight": [1, *weight[1:]],
                f"{name}.lora_B.weight": [weight[0], 1, *(1 for _ in weight[2:])],
            }
    alphas = {f"{part}.lora_alpha": ALPHA for part in Part}
    return file(shapes, {"lora_adapter_metadata": json.dumps(alphas), "trigger_word": "sks1"})


def written(source: io.BytesIO, layout: LoraLayout, added: dict[str, str] | None = None) -> io.BytesIO:
    target = io.BytesIO()
    convert(source, target, layout, added or {})
    return target


def changes(lora: io.BytesIO) -> dict[tuple[Part, str], tuple[float, dict[Factor, bytes]]]:
    """Return the scale and the bytes of each factor, by module."""
    found = reader.read(lora)
    start = data_start(lora)

    def factors(adapter: Adapter) -> dict[Factor, bytes]:
        return {
            factor: lora.getbuffer()[start + begin : start + end].tobytes()
            for factor, name in adapter.factors.items()
            for begin, end in [found.header.tensors[name].data_offsets]
        }

    return {(adapter.part, adapter.module): (adapter.scale, factors(adapter)) for adapter in found.adapters}


def modules(lora: io.BytesIO, prefix: str) -> set[str]:
    return {name.partition(".")[0].removeprefix(prefix) for name in read_header(lora).tensors if name.startswith(prefix)}


@pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL])
def test_kohyas_layout_makes_the_same_changes(engine: Engine) -> None:
    source = everything(engine)

    kohya = written(source, LoraLayout.KOHYA)

    info = read_lora(kohya)
    assert (info.key_format, info.engine, info.trigger_words) == (KeyFormat.KOHYA, engine, ["sks1"])
    assert changes(kohya) == changes(source)


@pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL])
def test_back_in_diffusers_layout_it_is_the_same_again(engine: Engine) -> None:
    source = everything(engine, diffs=False)

    back = written(written(source, LoraLayout.KOHYA), LoraLayout.DIFFUSERS)

    assert read_lora(back).key_format is KeyFormat.DIFFUSERS
    assert changes(back) == changes(source)
    assert {name.replace("text_model.", "") for name in read_header(back).tensors} == set(read_header(source).tensors)


def test_the_names_for_sdxl_are_those_of_the_release() -> None:
    found = modules(written(everything(Engine.SDXL), LoraLayout.KOHYA), "lora_unet_")

    released = ldm_layout.unet(published._UNETS[Engine.SDXL])
    assert found == {name.rpartition(".")[0].replace(".", "_") for name in released}


def _as_the_web_ui_reads(module: str) -> str:
    """Return the module of the release that AUTOMATIC1111's `convert_diffusers_name_to_compvis` takes a kohya name for."""
    if module in {"conv_in", "conv_out", "conv_norm_out"}:
        return {"conv_in": "input_blocks_0_0", "conv_out": "out_2", "conv_norm_out": "out_0"}[module]
    if found := re.fullmatch(r"time_embedding_linear_(\d)", module):
        return f"time_embed_{int(found[1]) * 2 - 2}"
    if found := re.fullmatch(r"mid_block_(attentions|resnets)_(\d)_(.+)", module):
        place = 1 if found[1] == "attentions" else int(found[2]) * 2
        return f"middle_block_{place}_{_RELEASED_LAYERS.get(found[3], found[3]) if found[1] == 'resnets' else found[3]}"
    if found := re.fullmatch(r"down_blocks_(\d)_downsamplers_0_conv", module):
        return f"input_blocks_{3 + int(found[1]) * 3}_0_op"
    if found := re.fullmatch(r"up_blocks_(\d)_upsamplers_0_conv", module):
        return f"output_blocks_{2 + int(found[1]) * 3}_{2 if int(found[1]) > 0 else 1}_conv"
    found = re.fullmatch(r"(down|up)_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", module)
    assert found is not None, module
    is_down, is_attention = found[1] == "down", found[3] == "attentions"
    number = (1 if is_down else 0) + int(found[2]) * 3 + int(found[4])
    layer = found[5] if is_attention else _RELEASED_LAYERS.get(found[5], found[5])
    return f"{'input' if is_down else 'output'}_blocks_{number}_{int(is_attention)}_{layer}"


def test_the_web_ui_finds_a_module_for_each_name_for_sd15() -> None:
    kohya = written(everything(Engine.SD15), LoraLayout.KOHYA)

    found = {_as_the_web_ui_reads(module) for module in modules(kohya, "lora_unet_")}
    released = ldm_layout.unet(published._UNETS[Engine.SD15])
    assert found == {name.rpartition(".")[0].replace(".", "_") for name in released}
    texts = {name.rpartition(".")[0].replace(".", "_") for name in ldm_layout.clip(published._CLIP)}
    assert modules(kohya, "lora_te_") == {name for name in texts if "embedding" not in name}


def test_the_metadata_tells_what_other_programs_show() -> None:
    kohya = written(everything(Engine.SDXL, diffs=False), LoraLayout.KOHYA, {"modelspec.title": "star", "ss_output_name": "star"})

    metadata = read_header(kohya).metadata
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert (metadata["modelspec.sai_model_spec"], metadata["modelspec.title"], metadata["ss_output_name"]) == (
        "1.0.0",
        "star",
        "star",
    )
    assert (metadata["ss_network_dim"], metadata["ss_network_module"]) == ("1", "networks.lora")
    assert "lora_adapter_metadata" not in metadata


ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
DORA = {f"unet.{ATTENTION}.lora_A.weight": [2, 320], f"unet.{ATTENTION}.lora_B.weight": [320, 2]}


def test_the_norms_of_dora_multiply_the_rows_as_in_lycoris() -> None:
    source = file(DORA | {f"unet.{ATTENTION}.lora_magnitude_vector": [320]})

    kohya = written(source, LoraLayout.KOHYA)

    header = read_header(kohya)
    assert header.tensors[f"lora_unet_{ATTENTION.replace('.', '_')}.dora_scale"].shape == [320, 1]
    assert header.metadata["ss_network_module"] == "lycoris.kohya"
    assert changes(kohya) == changes(source) == changes(written(kohya, LoraLayout.DIFFUSERS))


def test_a_checkpoint_of_another_size_keeps_diffusers_names() -> None:
    shapes = {name.replace("down_blocks.0", "down_blocks.1"): shape for name, shape in DORA.items()}
    source = file(shapes, {"engine": str(Engine.SDXL), "shape_class": "sdxl-00000000"})

    names = modules(written(source, LoraLayout.KOHYA), "lora_unet_")

    assert names == {ATTENTION.replace("down_blocks.0", "down_blocks.1").replace(".", "_")}
    assert FULL_SIZE_SHAPES[Engine.SDXL] != "sdxl-00000000"


@pytest.mark.parametrize(
    ("shapes", "layout", "reason"),
    [
        (DORA | {f"unet.{ATTENTION}.lora_B.bias": [320]}, LoraLayout.KOHYA, "the bias of an up projection, which kohya's"),
        ({"unet.conv_norm_out.diff": [320]}, LoraLayout.DIFFUSERS, "part of a change with diff, which diffusers' layout"),
        (DORA | {"bundle_emb.word.clip_l": [1, 768]}, LoraLayout.DIFFUSERS, "brings the textual inversion 'word'"),
    ],
)
def test_what_a_layout_has_no_name_for_is_refused(shapes: dict[str, list[int]], layout: LoraLayout, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as refused:
        written(file(shapes), layout)

    assert "leave format out" in refused.value.message
