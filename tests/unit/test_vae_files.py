"""What a VAE's header tells, in both layouts, and what is refused."""

import random
from pathlib import Path

import pytest

from shared.errors import InvalidError
from shared.formats import ldm_layout
from shared.formats.ldm_layout import VaeShape
from shared.formats.vae import VaeLayout, original_name, read_vae
from tests.support.upload_world import safetensors

ROOT = Path(__file__).parents[2]
TINY = ROOT / "deploy" / "checkpoints" / "tiny-sd15" / "vae" / "diffusion_pytorch_model.safetensors"
SMALL = VaeShape(latent_channels=4, channels=(16, 32), resnets=1, middle_attention=True, quant_convs=True)


def _write(tmp_path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    path = tmp_path / "vae.safetensors"
    path.write_bytes(safetensors({name: list(shape) for name, shape in shapes.items()}, metadata))
    return path


def _small(prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}": shape for name, shape in ldm_layout.vae(SMALL).items()}


def test_the_shipped_vae_is_described_as_it_is_configured() -> None:
    info = read_vae(TINY)

    assert (info.layout, info.factor, info.latent_channels, info.data_type) == (VaeLayout.DIFFUSERS, 4, 4, "fp16")
    assert info.config["block_out_channels"] == [32, 48, 64]
    assert (info.config["layers_per_block"], info.config["norm_num_groups"]) == (1, 16)
    assert (info.config["mid_block_add_attention"], info.config["use_quant_conv"]) == (False, True)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_the_original_layout_is_read_too(tmp_path: Path, prefix: str) -> None:
    info = read_vae(_write(tmp_path, _small(prefix)))

    assert (info.layout, info.factor, info.latent_channels) == (VaeLayout.ORIGINAL, 2, 4)
    assert info.config["mid_block_add_attention"] is True


def test_the_metadata_tells_the_groups(tmp_path: Path) -> None:
    assert read_vae(_write(tmp_path, _small(), {"tunesmith.vae.norm_num_groups": "8"})).config["norm_num_groups"] == 8


@pytest.mark.parametrize("told", ["0", "7", "x", "-8", "9" * 5000])
def test_groups_that_do_not_divide_are_refused(tmp_path: Path, told: str) -> None:
    with pytest.raises(InvalidError, match="a divisor of the VAE's widths"):
        read_vae(_write(tmp_path, _small(), {"tunesmith.vae.norm_num_groups": told}))


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
        ("encoder.mid_block.attentions.0.proj_attn.bias", "encoder.mid.attn_1.proj_out.bias"),
        ("decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid.attn_1.norm.weight"),
        ("decoder.up_blocks.0.upsamplers.0.conv.bias", "decoder.up.3.upsample.conv.bias"),
        ("encoder.down_blocks.1.resnets.0.conv_shortcut.weight", "encoder.down.1.block.0.nin_shortcut.weight"),
        ("quant_conv.weight", "quant_conv.weight"),
    ],
)
def test_names_are_translated(name: str, original: str) -> None:
    assert original_name(name, 4) == original


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shapes: shapes.clear(), "not a VAE of Stable Diffusion: an encoder and a decoder"),
        (lambda shapes: shapes.pop("decoder.norm_out.bias"), "it has no 'decoder.norm_out.bias'"),
        (lambda shapes: shapes.update({"stray": (1,)}), "it holds 'stray'"),
        (lambda shapes: shapes.update({"decoder.conv_out.bias": (4,)}), "'decoder.conv_out.bias' has the shape \\[4\\]"),
        (lambda shapes: shapes.update({"decoder.conv_in.weight": (32, 32, 3, 3)}), "32 latent channels; 1 to 16"),
        (lambda shapes: shapes.update({"encoder.down.0.block.0.conv1.weight": ()}), "has the shape"),
        (lambda shapes: shapes.update({f"encoder.down.{n}.block.0.conv1.weight": (16,) for n in range(9)}), "8 levels; 1 to 6"),
    ],
)  # fmt: skip
def test_what_is_not_a_vae_is_refused(tmp_path: Path, change, reason: str) -> None:
    shapes = _small()
    change(shapes)

    with pytest.raises(InvalidError, match=reason):
        read_vae(_write(tmp_path, shapes))


def test_a_damaged_header_is_read_or_refused(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path = tmp_path / "vae.safetensors"
    good = _write(tmp_path, _small()).read_bytes()
    length = 8 + int.from_bytes(good[:8], "little")
    for _ in range(100):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(length)] = chance.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            read_vae(path)
        except InvalidError as error:
            assert error.message
