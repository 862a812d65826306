"""LoRAs and textual inversions of every layout, built tensor by tensor, with some parts that do not fit the others."""

import struct
from typing import Any

from hypothesis import strategies as st

from tests.support.hostile_files import safetensors_file

BITS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I8": 1, "BOOL": 1}
MODULES = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0": (640, 640),
    "down_blocks.0.resnets.0.conv1": (320, 320, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": (320, 320),
    "text_model.encoder.layers.0.self_attn.q_proj": (768, 768),
    "text_projection": (768, 768),
    "double_blocks.0.img_attn.qkv": (9, 3),
    "conv_in": (320, 4, 3, 3),
}
PREFIXES = [
    "unet.",
    "lora_unet_",
    "lora_te_",
    "lora_te2_",
    "text_encoder.",
    "base_model.model.",
    "diffusion_model.",
    "lycoris_",
    "",
]
SUFFIXES = [
    *(
        ("lora_down.weight", "lora_up.weight"),
        ("lora_A.weight", "lora_B.weight"),
        ("lora_A.default.weight", "lora_B.default.weight"),
    ),
    *(("lora.down.weight", "lora.up.weight"), ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")),
]
METADATA = {
    "ss_network_alpha": ["4", "NaN", "", "1e999", "x" * 5000],
    "ss_base_model_version": ["sd_v1", "sdxl_base_v1-0", "sd_v2", "\0"],
    "lora_adapter_metadata": ['{"unet.lora_alpha": 4, "unet.r": 2}', "[", '{"unet.rank_pattern": {"(a+)+$": 3}}', "{}"],
    "modelspec.architecture": ["stable-diffusion-v1/lora", "flux-1-dev/lora", ""],
    "engine": ["image/stable-diffusion-xl-v1-0", "nothing"],
    "trigger_word": ["sks1", "", "\ud800"],
}
_VALUES = st.sampled_from([b"\0", b"\x01", b"\x3c", b"\x7f", b"\xff"])


def _values(draw: st.DrawFn, size: int) -> bytes:
    return draw(_VALUES) * size


def _packed(draw: st.DrawFn, tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape) in tensors.items():
        size = BITS[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += struct.pack("<e", 4) * (size // 2) if size == 2 else _values(draw, size)
    return safetensors_file(header, data)


def _factors(draw: st.DrawFn, sides: tuple[int, ...]) -> dict[str, list[int]]:
    rank, kernel = draw(st.sampled_from([0, 1, 4, 16])), list(sides[2:])
    down, up = [rank, *sides[1:]], [sides[0], rank, *[1] * len(kernel)]
    match draw(st.sampled_from(["lora", "lora", "lora", "loha", "lokr", "dora", "diff", "mid"])):
        case "loha":
            pair = {"a": [sides[0], rank], "b": [rank, *sides[1:2]]}
            return {f"hada_w{number}_{half}": pair[half] for number in "12" for half in "ab"}
        case "lokr":
            return {"lokr_w1": [4, 4], "lokr_w2_a": [sides[0] // 4, rank], "lokr_w2_b": [rank, sides[1] // 4]}
        case "diff":
            return {"diff": [sides[0]], "diff_b": [sides[0]]}
        case kind:
            first, second = draw(st.sampled_from(SUFFIXES))
            found = {first: down, second: up}
            if kind == "mid":
                found |= {"lora_mid.weight": [rank, rank, *(kernel or [3, 3])], first: [rank, sides[1], 1, 1]}
            return found | ({"dora_scale": [sides[0], 1]} if kind == "dora" else {})


@st.composite
def loras(draw: st.DrawFn) -> bytes:
    """Draw a LoRA file, most of whose tensors fit together."""
    tensors: dict[str, tuple[str, list[int]]] = {}
    prefix, dtype = draw(st.sampled_from(PREFIXES)), draw(st.sampled_from(["F16", "F16", "BF16", "F32", *BITS]))
    for module in draw(st.lists(st.sampled_from(sorted(MODULES)), min_size=1, max_size=4, unique=True)):
        flat = module.replace(".", "_") if prefix.endswith("_") else module
        for factor, shape in _factors(draw, MODULES[module]).items():
            tensors[f"{prefix}{flat}.{factor}"] = (dtype, shape)
        if draw(st.booleans()):
            tensors[f"{prefix}{flat}.alpha"] = (
                draw(st.sampled_from(sorted(BITS))),
                draw(st.sampled_from([[], [1], [2], [1, 1]])),
            )
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(tensors))) if tensors else "a"
        dtype, shape = tensors.get(name, ("F16", [1]))
        match draw(st.sampled_from(["drop", "side", "dtype", "stray", "bundle", "layout"])):
            case "drop":
                tensors.pop(name, None)
            case "side" if shape:
                place = draw(st.integers(0, len(shape) - 1))
                tensors[name] = (dtype, [*shape[:place], draw(st.sampled_from([0, 1, 3])), *shape[place + 1 :]])
            case "dtype":
                tensors[name] = (draw(st.sampled_from(sorted(BITS))), shape)
            case "bundle":
                tensors[draw(st.sampled_from(["bundle_emb.sks.clip_l", "bundle_emb..clip_g"]))] = (dtype, [2, 768])
            case "layout":
                tensors[draw(st.sampled_from(PREFIXES)) + name] = tensors.get(name, ("F16", [1]))
            case _:
                tensors[draw(st.text(min_size=1, max_size=20))] = (dtype, [1])
    keys = draw(st.lists(st.sampled_from(sorted(METADATA)), max_size=2, unique=True))
    return _packed(draw, tensors, {key: draw(st.sampled_from(METADATA[key])) for key in keys})


@st.composite
def embeddings(draw: st.DrawFn) -> bytes:
    """Draw a textual inversion in some layout, maybe with tensors that do not belong to it."""
    names = [
        "emb_params",
        "string_to_param.*",
        "step",
        "clip_l",
        "clip_g",
        "text_encoders_0",
        "text_encoders_1",
        "<sks>",
        "\ud800",
    ]
    layout = draw(
        st.sampled_from(
            [["emb_params"], ["string_to_param.*", "step"], ["clip_l", "clip_g"], ["text_encoders_0", "text_encoders_1"]]
        )
    )
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name in layout + draw(st.lists(st.one_of(st.sampled_from(names), st.text(max_size=10)), max_size=2)):
        dtype = draw(st.sampled_from(["F16", "F16", "F32", *BITS]))
        shape = draw(st.sampled_from([[2, 768], [2, 1280], [768], [1], [], [64, 8], [65, 8], [1, 1, 8], [0, 768], [1, 2049]]))
        tensors[name] = (dtype, shape)
    keys = draw(st.lists(st.sampled_from(sorted(METADATA)), max_size=1))
    return _packed(draw, tensors, {key: draw(st.sampled_from(METADATA[key])) for key in keys})
