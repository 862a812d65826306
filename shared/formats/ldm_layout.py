"""The names and shapes of the tensors in Stable Diffusion's own releases, computed from what varies between models.

The layout is that of the reference code (github.com/CompVis/latent-diffusion, github.com/Stability-AI/generative-models): the
UNet has the prefix `model.diffusion_model.`, the autoencoder `first_stage_model.`, CLIP has transformers' names, and SDXL's
second text encoder has open_clip's. A file of this layout is compared with these, name by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]
"""Tensor names and their shapes."""


@dataclass(frozen=True)
class UNetShape:
    """What varies between UNets. Tuples have one entry for each level, from the finest to the coarsest."""

    in_channels: int
    channels: tuple[int, ...]
    resnets: int
    """Residual blocks of each level."""
    depths: tuple[int, ...]
    """Transformer blocks after each residual block; 0 for levels without attention."""
    middle_depth: int
    context: int
    """The width of the text features for cross-attention."""
    added: int | None
    """The width of SDXL's added embedding (pooled text and sizes); None for SD 1.5."""
    linear: bool
    """Whether the projections into and out of attention are matrices, as in SDXL, or convolutions of 1 x 1, as in SD 1.5."""


@dataclass(frozen=True)
class VaeShape:
    """What varies between autoencoders."""

    latent_channels: int
    channels: tuple[int, ...]
    resnets: int
    """Residual blocks of each level of the encoder; the decoder has one more."""
    middle_attention: bool
    quant_convs: bool


@dataclass(frozen=True)
class TextShape:
    """What varies between text encoders."""

    vocabulary: int
    positions: int
    width: int
    inner: int
    layers: int


def unet(shape: UNetShape) -> Shapes:
    """Return a UNet's tensors, without the prefix `model.diffusion_model.`."""
    channels, first = shape.channels, shape.channels[0]
    time = 4 * first
    found = _linear("time_embed.0", time, first) | _linear("time_embed.2", time, time)
    if shape.added is not None:
        found |= _linear("label_emb.0.0", time, shape.added) | _linear("label_emb.0.2", time, time)
    found |= _conv("input_blocks.0.0", first, shape.in_channels)
    skips, width, block = [first], first, 1
    for level, out in enumerate(channels):
        for _ in range(shape.resnets):
            found |= _residual(f"input_blocks.{block}.0", width, out, time)
            found |= _transformer(f"input_blocks.{block}.1", out, shape.depths[level], shape)
            width, block = out, block + 1
            skips.append(out)
        if level < len(channels) - 1:
            found |= _conv(f"input_blocks.{block}.0.op", out, out)
            block += 1
            skips.append(out)
    found |= _residual("middle_block.0", width, width, time) | _residual("middle_block.2", width, width, time)
    found |= _transformer("middle_block.1", width, shape.middle_depth, shape)
    block = 0
    for level, out in reversed(list(enumerate(channels))):
        for number in range(shape.resnets + 1):
            found |= _residual(f"output_blocks.{block}.0", width + skips.pop(), out, time)
            found |= _transformer(f"output_blocks.{block}.1", out, shape.depths[level], shape)
            if level and number == shape.resnets:
                found |= _conv(f"output_blocks.{block}.{2 if shape.depths[level] else 1}.conv", out, out)
            width, block = out, block + 1
    return found | _norm("out.0", first) | _conv("out.2", shape.in_channels, first)


def vae(shape: VaeShape) -> Shapes:
    """Return an autoencoder's tensors, without the prefix `first_stage_model.`, with its attention as matrices."""
    channels, latent = shape.channels, shape.latent_channels
    first, last = channels[0], channels[-1]
    found = _vae_middle("encoder.mid", last, attention=shape.middle_attention)
    found |= _vae_middle("decoder.mid", last, attention=shape.middle_attention)
    found |= _conv("encoder.conv_in", first, 3) | _norm("encoder.norm_out", last) | _conv("encoder.conv_out", 2 * latent, last)
    width = first
    for level, out in enumerate(channels):
        for number in range(shape.resnets):
            found |= _vae_residual(f"encoder.down.{level}.block.{number}", width, out)
            width = out
        if level < len(channels) - 1:
            found |= _conv(f"encoder.down.{level}.downsample.conv", out, out)
    found |= _conv("decoder.conv_in", last, latent) | _norm("decoder.norm_out", first) | _conv("decoder.conv_out", 3, first)
    for level, out in reversed(list(enumerate(channels))):
        for number in range(shape.resnets + 1):
            found |= _vae_residual(f"decoder.up.{level}.block.{number}", width, out)
            width = out
        if level:
            found |= _conv(f"decoder.up.{level}.upsample.conv", out, out)
    if shape.quant_convs:
        found |= _conv("quant_conv", 2 * latent, 2 * latent, 1) | _conv("post_quant_conv", latent, latent, 1)
    return found


def clip(shape: TextShape) -> Shapes:
    """Return a text encoder's tensors with transformers' names, which begin with `text_model.`."""
    width = shape.width
    found: Shapes = {
        "text_model.embeddings.token_embedding.weight": (shape.vocabulary, width),
        "text_model.embeddings.position_embedding.weight": (shape.positions, width),
    }
    for layer in range(shape.layers):
        prefix = f"text_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{prefix}.self_attn.{part}", width, width)
        found |= _norm(f"{prefix}.layer_norm1", width) | _norm(f"{prefix}.layer_norm2", width)
        found |= _linear(f"{prefix}.mlp.fc1", shape.inner, width) | _linear(f"{prefix}.mlp.fc2", width, shape.inner)
    return found | _norm("text_model.final_layer_norm", width)


def open_clip(shape: TextShape) -> Shapes:
    """Return a text encoder's tensors with open_clip's names, and its square projection."""
    width = shape.width
    found: Shapes = {
        "token_embedding.weight": (shape.vocabulary, width),
        "positional_embedding": (shape.positions, width),
        "text_projection": (width, width),
    }
    for layer in range(shape.layers):
        prefix = f"transformer.resblocks.{layer}"
        found |= {f"{prefix}.attn.in_proj_weight": (3 * width, width), f"{prefix}.attn.in_proj_bias": (3 * width,)}
        found |= _linear(f"{prefix}.attn.out_proj", width, width)
        found |= _norm(f"{prefix}.ln_1", width) | _norm(f"{prefix}.ln_2", width)
        found |= _linear(f"{prefix}.mlp.c_fc", shape.inner, width) | _linear(f"{prefix}.mlp.c_proj", width, shape.inner)
    return found | _norm("ln_final", width)


def differences(wanted: Shapes, found: Shapes) -> Iterator[str]:
    """Yield the differences between `found` and `wanted`: tensors that are missing, have another shape, or do not belong."""
    for name, shape in wanted.items():
        if name not in found:
            yield f"it has no {name!r}"
        elif found[name] != shape:
            yield f"{name!r} has the shape {list(found[name])}; by the other tensors it must have {list(shape)}"
    for name in found.keys() - wanted.keys():
        yield f"it holds {name[:200]!r}, which does not belong to it"


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _conv(name: str, out: int, into: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def _residual(name: str, into: int, out: int, time: int) -> Shapes:
    found = _norm(f"{name}.in_layers.0", into) | _conv(f"{name}.in_layers.2", out, into)
    found |= _linear(f"{name}.emb_layers.1", out, time) | _norm(f"{name}.out_layers.0", out)
    found |= _conv(f"{name}.out_layers.3", out, out)
    return found | (_conv(f"{name}.skip_connection", out, into, 1) if into != out else {})


def _transformer(name: str, width: int, depth: int, shape: UNetShape) -> Shapes:
    if not depth:
        return {}
    found = _norm(f"{name}.norm", width)
    for part in ("proj_in", "proj_out"):
        found |= _linear(f"{name}.{part}", width, width) if shape.linear else _conv(f"{name}.{part}", width, width, 1)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for attention, source in (("attn1", width), ("attn2", shape.context)):
            found |= {f"{block}.{attention}.to_q.weight": (width, width)}
            found |= {f"{block}.{attention}.to_{part}.weight": (width, source) for part in "kv"}
            found |= _linear(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            found |= _norm(f"{block}.{norm}", width)
        found |= _linear(f"{block}.ff.net.0.proj", 8 * width, width) | _linear(f"{block}.ff.net.2", width, 4 * width)
    return found


def _vae_residual(name: str, into: int, out: int) -> Shapes:
    found = _norm(f"{name}.norm1", into) | _conv(f"{name}.conv1", out, into)
    found |= _norm(f"{name}.norm2", out) | _conv(f"{name}.conv2", out, out)
    return found | (_conv(f"{name}.nin_shortcut", out, into, 1) if into != out else {})


def _vae_middle(name: str, width: int, *, attention: bool) -> Shapes:
    found = _vae_residual(f"{name}.block_1", width, width) | _vae_residual(f"{name}.block_2", width, width)
    if attention:
        found |= _norm(f"{name}.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            found |= _linear(f"{name}.attn_1.{part}", width, width)
    return found
