"""DoRA, LoHa, LoKr, convolutions in three parts, biases and norms act as the weights merged by hand, and can be undone."""

from pathlib import Path

import pytest
import torch

from services.inference.worker.lora_switch import LoraSwitch
from services.inference.worker.residency import Residency
from shared.errors import InvalidError
from shared.models.checkpoints import Components
from tests.support.lora_files import (
    ATTENTION,
    BLOCK,
    CONVOLUTIONS,
    Tensors,
    factors,
    find,
    flat,
    is_same,
    merged,
    outputs,
    products,
    write,
)

LINEAR, CONVOLUTION = f"unet.{BLOCK}.attn1.to_q", "unet.mid_block.resnets.0.conv1"
NORM, RESNET_NORM = f"unet.{BLOCK}.norm1", "unet.mid_block.resnets.0.norm1"


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.3


def _check(switch: LoraSwitch, base: Components, folder: Path, tensors: Tensors, changes: Tensors) -> None:
    """Check the outputs at full and at half strength, and that the base comes back bit by bit."""
    before = outputs(base)
    for weight in (1.0, 0.5):
        expected = outputs(merged(base, {name: change * weight for name, change in changes.items()}))
        switch.use([write(folder, tensors, weight=weight)])
        assert not is_same(before, expected)
        assert is_same(outputs(base), expected)
        switch.use([])
        assert all(torch.equal(one, other) for one, other in zip(before, outputs(base), strict=True))


@pytest.mark.parametrize(("layout", "axis"), [("kohya-ss", 0), ("kohya-ss", 1), ("PEFT", 0)])
def test_dora(sd15: Components, switch: LoraSwitch, tmp_path: Path, layout: str, axis: int) -> None:
    made = factors(sd15, [*ATTENTION, CONVOLUTION])
    tensors, changes = {}, {}
    for place, change in products(made).items():
        module = place.removesuffix(".weight")
        weight = find(sd15, module).weight.detach()
        norms = (weight + change).square().sum(dim=[side for side in range(weight.dim()) if side != axis], keepdim=True).sqrt()
        magnitude = norms * (1 + _random(*norms.shape).abs())
        changes[place] = (weight + change) * magnitude / norms - weight
        down, up = made[module]
        if layout == "PEFT":
            stored = magnitude.flatten() if weight.dim() == 2 else magnitude.transpose(0, 1)
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up, f"{module}.lora_magnitude_vector": stored}
        else:
            name = flat(module)
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.dora_scale": magnitude}

    _check(switch, sd15, tmp_path, tensors, changes)


def test_loha(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    tensors, changes = {}, {}
    for place in (LINEAR, CONVOLUTION):
        shape = find(sd15, place).weight.shape
        columns = shape[1:].numel()
        halves = [(_random(shape[0], 3, seed=n), _random(3, columns, seed=n)) for n in (1, 2)]
        for number, (a, b) in enumerate(halves, 1):
            tensors |= {f"{flat(place)}.hada_w{number}_a": a, f"{flat(place)}.hada_w{number}_b": b}
        tensors[f"{flat(place)}.alpha"] = torch.tensor(6.0)
        changes[f"{place}.weight"] = ((halves[0][0] @ halves[0][1]) * (halves[1][0] @ halves[1][1])).reshape(shape) * 2

    _check(switch, sd15, tmp_path, tensors, changes)


def test_loha_with_cores(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    out, into, *kernel = find(sd15, CONVOLUTION).weight.shape
    tensors, change = {}, torch.ones(())
    for number in (1, 2):
        a, b, core = _random(3, out, seed=number), _random(3, into, seed=number + 9), _random(3, 3, *kernel, seed=number)
        tensors |= {
            f"{flat(CONVOLUTION)}.hada_{name}{number}{end}": t
            for name, end, t in (("w", "_a", a), ("w", "_b", b), ("t", "", core))
        }
        change = change * torch.stack(
            [a.T @ core[:, :, x, y] @ b for x in range(kernel[0]) for y in range(kernel[1])], dim=-1
        ).reshape(out, into, *kernel)

    _check(switch, sd15, tmp_path, tensors, {f"{CONVOLUTION}.weight": change})


@pytest.mark.parametrize("form", ["whole", "second in two", "both in two"])
def test_lokr(sd15: Components, switch: LoraSwitch, tmp_path: Path, form: str) -> None:
    out, into = find(sd15, LINEAR).weight.shape
    first, second, scale = _random(4, 2), _random(out // 4, into // 2), 1.0
    name = flat(LINEAR)
    # Alpha means nothing without a rank.
    tensors = {f"{name}.lokr_w1": first, f"{name}.lokr_w2": second, f"{name}.alpha": torch.tensor(1e10)}
    if form != "whole":
        a, b = _random(out // 4, 2), _random(2, into // 2)
        second, scale = a @ b, 3.0
        tensors = {f"{name}.lokr_w1": first, f"{name}.lokr_w2_a": a, f"{name}.lokr_w2_b": b, f"{name}.alpha": torch.tensor(6.0)}
    if form == "both in two":
        a, b = _random(4, 2, seed=5), _random(2, 2, seed=6)
        first = a @ b
        del tensors[f"{name}.lokr_w1"]
        tensors |= {f"{name}.lokr_w1_a": a, f"{name}.lokr_w1_b": b}

    change = torch.cat([torch.cat([first[row, column] * second for column in range(2)], 1) for row in range(4)]) * scale
    _check(switch, sd15, tmp_path, tensors, {f"{LINEAR}.weight": change})


def test_lokr_of_a_convolution(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    out, into, *kernel = find(sd15, CONVOLUTION).weight.shape
    first, second = _random(4, 2), _random(out // 4, into // 2, *kernel)

    change = torch.cat([torch.cat([first[row, column] * second for column in range(2)], 1) for row in range(4)])
    tensors = {f"{flat(CONVOLUTION)}.lokr_w1": first, f"{flat(CONVOLUTION)}.lokr_w2": second}
    _check(switch, sd15, tmp_path, tensors, {f"{CONVOLUTION}.weight": change})


def test_a_convolution_in_three_parts(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    out, into, *kernel = find(sd15, CONVOLUTION).weight.shape
    down, mid, up = _random(3, into, 1, 1), _random(3, 3, *kernel), _random(out, 3, 1, 1)
    name = flat(CONVOLUTION)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}

    cells = [up[:, :, 0, 0] @ mid[:, :, x, y] @ down[:, :, 0, 0] for x in range(kernel[0]) for y in range(kernel[1])]
    change = torch.stack(cells, dim=-1).reshape(out, into, *kernel)
    _check(switch, sd15, tmp_path, tensors, {f"{CONVOLUTION}.weight": change})


def test_changes_of_weights_biases_and_norms(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    made = factors(sd15, [CONVOLUTION])
    down, up = made[CONVOLUTION]
    width = up.shape[0]
    weight = find(sd15, CONVOLUTIONS[0]).weight
    tensors = {
        f"{flat(CONVOLUTION)}.lora_down.weight": down,
        f"{flat(CONVOLUTION)}.lora_up.weight": up,
        f"{flat(CONVOLUTION)}.diff_b": _random(width, seed=1),
        f"{flat(NORM)}.w_norm": _random(width, seed=2),
        f"{flat(NORM)}.b_norm": _random(width, seed=3),
        f"{flat(RESNET_NORM)}.b_norm": _random(width, seed=4),
        f"{flat(CONVOLUTIONS[0])}.diff": _random(*weight.shape),
    }

    changes = products(made) | {
        f"{CONVOLUTION}.bias": tensors[f"{flat(CONVOLUTION)}.diff_b"],
        f"{NORM}.weight": tensors[f"{flat(NORM)}.w_norm"],
        f"{NORM}.bias": tensors[f"{flat(NORM)}.b_norm"],
        f"{RESNET_NORM}.bias": tensors[f"{flat(RESNET_NORM)}.b_norm"],
        f"{CONVOLUTIONS[0]}.weight": tensors[f"{flat(CONVOLUTIONS[0])}.diff"],
    }
    _check(switch, sd15, tmp_path, tensors, changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unet.mid_block.attentions.5.proj_in.lora_A.weight": (2, 32), "unet.mid_block.attentions.5.proj_in.lora_B.weight": (32, 2)}, "does not have"),
        ({f"{LINEAR}.lora_A.weight": (2, 64), f"{LINEAR}.lora_B.weight": (32, 2)}, "32 x 64, but .* has 32 x 32"),
        ({f"{NORM}.lora_A.weight": (2, 1), f"{NORM}.lora_B.weight": (32, 2)}, "32 x 1"),
        ({f"{LINEAR}.diff_b": (32,)}, "the bias"),
        ({"text_encoder_2.text_projection.lora_A.weight": (2, 32), "text_encoder_2.text_projection.lora_B.weight": (32, 2)}, "does not have"),
    ],
)  # fmt: skip
def test_a_lora_that_does_not_fit_costs_nobody_else_anything(
    sd15: Components, switch: LoraSwitch, tmp_path: Path, change: dict[str, tuple[int, ...]], reason: str
) -> None:
    made = factors(sd15, ATTENTION)
    good = write(
        tmp_path,
        {f"{p}.{half}.weight": t for p, pair in made.items() for half, t in zip(("lora_A", "lora_B"), pair, strict=True)},
    )
    bad = write(tmp_path, {name: _random(*shape) for name, shape in change.items()})
    switch.use([good])
    before = outputs(sd15)

    with pytest.raises(InvalidError, match=f"loras: 'mine' cannot be used .*{reason}"):
        switch.use([good, bad])

    assert switch.loaded == [good.sha256]
    assert all(torch.equal(one, other) for one, other in zip(before, outputs(sd15), strict=True))


def test_a_bad_file_leaves_the_checkpoint_loaded(sd15: Components, tmp_path: Path) -> None:
    residency = Residency(torch.device("cpu"), max_bytes=2**30)
    folder = sd15.scheduler_folder.parent
    resident = residency.checkpoint("base", folder)
    bad = write(tmp_path, {f"{LINEAR}.lora_A.weight": _random(2, 64), f"{LINEAR}.lora_B.weight": _random(32, 2)})

    with pytest.raises(InvalidError):
        residency.checkpoint("base", folder, [bad])

    assert residency.checkpoint("base", folder) is resident


def test_bundled_textual_inversions_are_there_while_the_lora_is_on(sd15: Components, switch: LoraSwitch, tmp_path: Path) -> None:
    [(place, (down, up))] = factors(sd15, ATTENTION[:1]).items()
    lora = {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
    vectors = _random(2, 32)

    switch.use([write(tmp_path, lora | {"bundle_emb.<mine>.emb_params": vectors})])

    assert torch.equal(switch.vectors["<mine>"][0], vectors)
    switch.use([])
    assert switch.vectors == {}
    with pytest.raises(InvalidError, match="its textual inversion '<mine>' is"):
        switch.use([write(tmp_path, lora | {"bundle_emb.<mine>.emb_params": _random(2, 33)})])
