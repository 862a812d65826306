"""Every layout of LoRA files acts as the same weights merged by hand, and leaves the checkpoint as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from services.inference.worker.lora_switch import LoraSwitch
from shared.engines import Engine
from shared.formats.lora.info import read_lora
from shared.models.checkpoints import Components
from tests.support.lora_files import (
    ATTENTION,
    CONVOLUTIONS,
    LINEAR,
    SECOND,
    TEXT,
    factors,
    flat,
    is_same,
    merged,
    outputs,
    products,
    released,
    write,
)


def _text(place: str) -> str:
    return place.replace("text_encoder.", "text_encoder.text_model.").replace(
        "text_encoder_2.encoder", "text_encoder_2.text_model.encoder"
    )


def _old(place: str) -> str:
    attention, _, layer = place.rpartition(".to_")
    return f"{attention}.processor.to_{layer.removesuffix('.0')}_lora"


def _bare(place: str) -> str:
    return _text(place).partition(".")[2]


Halves = Callable[[str], tuple[str, str]]


def _named(spell: Callable[[str], str], down: str, up: str) -> Halves:
    return lambda place: (f"{spell(place)}{down}", f"{spell(place)}{up}")


KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
ALL = LINEAR + CONVOLUTIONS + TEXT
LAYOUTS: dict[str, tuple[list[str], Halves]] = {
    "diffusers today": (ALL, _named(_text, *PEFT)),
    "diffusers, text encoder of transformers 5.6": (ALL, _named(str, *PEFT)),
    "diffusers with the adapter's name": (ALL, _named(_text, ".lora_A.default.weight", ".lora_B.default.weight")),
    "diffusers of late 2023": (LINEAR + CONVOLUTIONS, _named(str, ".lora.down.weight", ".lora.up.weight")),
    "diffusers of 2023": (ATTENTION, _named(_old, ".down.weight", ".up.weight")),
    "diffusers of 2023, text encoder": (TEXT, _named(_text, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")),
    "OneTrainer": (ALL, _named(_text, *KOHYA)),
    "OneTrainer, released names": (LINEAR + CONVOLUTIONS, _named(lambda place: f"unet.{released(place)}", *KOHYA)),
    "OneTrainer, text encoder": (TEXT, _named(lambda place: f"clip_l.text_model.{place.partition('.')[2]}", *KOHYA)),
    "PEFT": (LINEAR + CONVOLUTIONS, _named(lambda place: f"base_model.model.{_bare(place)}", *PEFT)),
    "PEFT, text encoder": (TEXT, _named(lambda place: f"base_model.model.{_bare(place)}", *PEFT)),
    "PEFT without prefix": (LINEAR + CONVOLUTIONS, _named(_bare, *PEFT)),
    "kohya-ss": (ALL, _named(flat, *KOHYA)),
    "kohya-ss, te1": (ALL, _named(lambda place: flat(place, text_encoder="lora_te1"), *KOHYA)),
    "kohya-ss without text_model": (ALL, _named(lambda place: flat(place).replace("text_model_", ""), *KOHYA)),
    "kohya-ss, released names": (
        LINEAR + CONVOLUTIONS,
        _named(lambda place: f"lora_unet_{released(place).replace('.', '_')}", *KOHYA),
    ),
    "LyCORIS": (ALL, _named(lambda place: flat(place, unet="lycoris"), *KOHYA)),
    "ComfyUI": (LINEAR + CONVOLUTIONS, _named(lambda place: f"diffusion_model.{released(place)}", *PEFT)),
    "ComfyUI, kohya-ss' halves": (LINEAR + CONVOLUTIONS, _named(lambda place: f"diffusion_model.{released(place)}", *KOHYA)),
    "ComfyUI, text encoder": (TEXT, _named(lambda place: f"text_encoders.clip_l.transformer.{_bare(place)}", *PEFT)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_acts_as_the_merged_weights(sd15: Components, switch: LoraSwitch, tmp_path: Path, layout: str) -> None:
    places, spell = LAYOUTS[layout]
    made = factors(sd15, places)
    file = write(
        tmp_path, {name: half for place, pair in made.items() for name, half in zip(spell(place), pair, strict=True)}, weight=0.7
    )
    before, expected = outputs(sd15), outputs(merged(sd15, {name: change * 0.7 for name, change in products(made).items()}))

    read_lora(file.path)
    switch.use([file])

    assert not is_same(before, expected)
    assert is_same(outputs(sd15), expected)
    switch.use([])
    assert all(torch.equal(one, other) for one, other in zip(before, outputs(sd15), strict=True))


@pytest.mark.parametrize("te", ["text_encoder.text_model", "text_encoder"])
def test_both_text_encoders_of_sdxl_and_the_projection_are_changed(sdxl: Components, tmp_path: Path, te: str) -> None:
    made = factors(sdxl, [*ATTENTION, *TEXT, *SECOND])
    kohya = {flat(place, text_encoder="lora_te1"): pair for place, pair in made.items()}
    diffusers = {_text(place).replace("text_encoder.text_model", te): pair for place, pair in made.items()}
    expected = outputs(merged(sdxl, products(made)))

    for names, halves in ((kohya, KOHYA), (diffusers, PEFT)):
        switch = LoraSwitch(sdxl)
        file = write(
            tmp_path, {name + half: tensor for name, pair in names.items() for half, tensor in zip(halves, pair, strict=True)}
        )
        switch.use([file])
        assert is_same(outputs(sdxl), expected)
        assert read_lora(file.path).engine is Engine.SDXL
        switch.use([])


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(torch.float32, ()), (torch.float16, (1,)), (torch.bfloat16, (1, 1)), (torch.float64, ()), (torch.int64, (1,))],
)
def test_each_module_has_an_alpha_of_any_type_and_shape(
    sd15: Components, switch: LoraSwitch, tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    made = factors(sd15, LINEAR)
    tensors = {flat(place) + half: tensor for place, pair in made.items() for half, tensor in zip(KOHYA, pair, strict=True)}
    alphas = {f"{flat(place)}.alpha": torch.full(shape, 2, dtype=dtype) for place in made}

    expected = outputs(merged(sd15, products(made, lambda rank: 2 / rank)))

    switch.use([write(tmp_path, tensors | alphas)])

    assert is_same(outputs(sd15), expected)


@pytest.mark.parametrize("is_stabilised", [False, True])
def test_the_metadata_of_diffusers_has_alphas(sd15: Components, switch: LoraSwitch, tmp_path: Path, is_stabilised: bool) -> None:
    made = factors(sd15, ATTENTION)
    tensors = {place + half: tensor for place, pair in made.items() for half, tensor in zip(PEFT, pair, strict=True)}
    config = {"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 1.5}, "unet.use_rslora": is_stabilised}

    alphas = {place: 1.5 if place.endswith("attn2.to_k") else 6.0 for place in made}
    ranks = {place: down.shape[0] ** (0.5 if is_stabilised else 1) for place, (down, _) in made.items()}
    changes = {f"{place}.weight": alphas[place] / ranks[place] * (up @ down) for place, (down, up) in made.items()}
    expected = outputs(merged(sd15, changes))

    switch.use([write(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)})])

    assert is_same(outputs(sd15), expected)


def test_a_module_that_is_named_twice_is_changed_once(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    made = factors(sd15, ATTENTION)
    names = {
        f"lora_unet_{spelling}": pair for p, pair in made.items() for spelling in (flat(p)[10:], released(p).replace(".", "_"))
    }
    tensors = {name + half: tensor.clone() for name, pair in names.items() for half, tensor in zip(KOHYA, pair, strict=True)}

    expected = outputs(merged(sd15, products(made)))

    switch.use([write(tmp_path, tensors)])

    assert is_same(outputs(sd15), expected)


def test_several_loras_add_up(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    some, others = factors(sd15, LINEAR), factors(sd15, ATTENTION + TEXT, seed=1)
    files = [
        write(tmp_path, {p + half: t for p, pair in made.items() for half, t in zip(PEFT, pair, strict=True)}, weight=weight)
        for made, weight in ((some, 0.5), (others, -1.0))
    ]

    changes = {name: change * 0.5 for name, change in products(some).items()}
    for name, change in products(others).items():
        changes[name] = changes.get(name, torch.zeros(())) - change
    expected = outputs(merged(sd15, changes))

    switch.use(files)

    assert is_same(outputs(sd15), expected)
