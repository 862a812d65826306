"""Finds the models in a file of Stable Diffusion's own layout by its shapes, and refuses a file that is not whole."""

from dataclasses import dataclass
from itertools import takewhile

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import ldm_layout
from shared.formats import vae as vae_files
from shared.formats.ldm_layout import Shapes, TextShape, UNetShape, VaeShape
from shared.formats.safetensors import Header

UNET = "model.diffusion_model."
CLIP = {Engine.SD15: "cond_stage_model.transformer.", Engine.SDXL: "conditioner.embedders.0.transformer."}
OPEN_CLIP = {Engine.SDXL: "conditioner.embedders.1.model.", Engine.SDXL_REFINER: "conditioner.embedders.0.model."}
NUMBERS = {Engine.SDXL: 6, Engine.SDXL_REFINER: 5}
"""How many numbers the added embedding has besides the pooled text: original size, crop and target size, two each. The refiner
has one score of the image's looks instead of the target size."""
_LATENT_CHANNELS = 4
_MAX_LEVELS, _MAX_RESNETS, _MAX_WIDTH, _MAX_DEPTH = 6, 4, 2048, 24
_MAX_TEXT_WIDTH, _MAX_TEXT_LAYERS, _MAX_POSITIONS = 2048, 48, 77
IGNORED = ("position_ids", "logit_scale")
"""The ends of names in old files that are no weights: constants, and a scale that only CLIP's training needs."""
_CROSS_KEYS = ".transformer_blocks.0.attn2.to_k.weight"
_OTHERS = {
    "cond_stage_model.model.": "a Stable Diffusion 2 checkpoint",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "model.diffusion_model.double_blocks.": "a FLUX checkpoint",
    "double_blocks.": "a FLUX checkpoint",
    "lora_": "a LoRA",
    "unet.": "a LoRA or one part of a model in diffusers' layout",
    "down_blocks.": "a UNet alone, in diffusers' layout",
    "encoder.": "a VAE alone",
}


@dataclass(frozen=True)
class Parts:
    """The models in a single file."""

    engine: Engine
    unet: UNetShape
    vae: VaeShape
    texts: tuple[TextShape, ...]
    """One for SD 1.5, two for SDXL, and SDXL's second alone for its refiner."""


def read(header: Header) -> Parts:
    """Return the models in the file. Raises InvalidError that says what is missing, or does not fit together."""
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in header.tensors.items()}
    engine = _engine(shapes)
    unet = _unet(_part(shapes, UNET))
    vae = _vae(_part(shapes, vae_files.PREFIX))
    texts = [_clip(_part(shapes, CLIP[engine]))] if engine in CLIP else []
    if engine in OPEN_CLIP:
        texts.append(_open_clip(_part(shapes, OPEN_CLIP[engine])))
    _check_fit(engine, unet, vae, texts)
    return Parts(engine, unet, vae, tuple(texts))


def _engine(shapes: Shapes) -> Engine:
    # The first text encoder tells the engine.
    for engine, prefix in (OPEN_CLIP | CLIP).items():
        if any(name.startswith(prefix) for name in shapes) and any(name.startswith(UNET) for name in shapes):
            return engine
    found = next((what for prefix, what in _OTHERS.items() if any(name.startswith(prefix) for name in shapes)), "something else")
    msg = (
        f"the file is {found}; a single-file checkpoint of SD 1.5 ({UNET}..., {CLIP[Engine.SD15]}...), of SDXL "
        f"({CLIP[Engine.SDXL]}...) or of its refiner ({OPEN_CLIP[Engine.SDXL_REFINER]}...) is "
        "needed, or an uncompressed tar of a model folder in diffusers' layout"
    )
    raise InvalidError(msg)


def _part(shapes: Shapes, prefix: str) -> Shapes:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and not name.endswith(IGNORED)
    }


def _unet(shapes: Shapes) -> UNetShape:
    in_channels = _side(shapes, "input_blocks.0.0.weight", 1)
    if in_channels != _LATENT_CHANNELS:
        kind = {9: ", as inpainting models do", 8: ", as models that edit images do"}.get(in_channels, "")
        msg = f"the UNet takes {in_channels} channels{kind}; a base checkpoint takes {_LATENT_CHANNELS}"
        raise InvalidError(msg)
    channels: list[int] = []
    depths: list[int] = []
    resnets: list[int] = []
    width = depth = blocks = 0
    block = 1
    while _first(block) in shapes or _down(block) in shapes:
        if _down(block) not in shapes:
            width, depth, blocks = _side(shapes, _first(block), 0), _depth(shapes, f"input_blocks.{block}.1"), blocks + 1
        block += 1
        # A level ends with a downsampling block, the last level with the blocks.
        if _down(block - 1) in shapes or (_first(block) not in shapes and _down(block) not in shapes):
            channels.append(width)
            depths.append(depth)
            resnets.append(blocks)
            blocks = 0
    keys = next((name for name in shapes if name.endswith(_CROSS_KEYS)), "")
    context = _side(shapes, keys, 1)
    middle = depths[-1] or _depth(shapes, "middle_block.1")
    _bound("UNet", "levels", len(channels), _MAX_LEVELS)
    _bound("UNet", "residual blocks in a level", max(resnets), _MAX_RESNETS)
    _bound("UNet", "channels", max(channels), _MAX_WIDTH)
    _bound("UNet", "transformer blocks in a row", max(depths), _MAX_DEPTH)
    _bound("UNet", "transformer blocks in its middle", middle, _MAX_DEPTH)
    _bound("UNet", "text features to attend to", context, 2 * _MAX_TEXT_WIDTH)
    shape = UNetShape(
        in_channels=in_channels,
        channels=tuple(channels),
        resnets=resnets[0],
        depths=tuple(depths),
        # diffusers gives the middle as many as the last level. A file with another number differs below.
        middle_depth=middle,
        context=context,
        added=_side(shapes, "label_emb.0.0.weight", 1) or None,
        linear=len(shapes.get(f"{keys.removesuffix(_CROSS_KEYS)}.proj_in.weight", ())) == 2,  # noqa: PLR2004 - a matrix
    )
    _same("UNet", ldm_layout.unet(shape), shapes)
    return shape


def _vae(shapes: Shapes) -> VaeShape:
    try:
        return vae_files.check(shapes)
    except InvalidError as error:
        msg = f"the checkpoint's VAE: {error.message}"
        raise InvalidError(msg) from error


def clip_name(name: str) -> str:
    """Return transformers' name of a tensor of a text encoder; some programs leave out what all of the names begin with."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _clip(shapes: Shapes) -> TextShape:
    shapes = {clip_name(name): shape for name, shape in shapes.items()}
    tokens, positions = "text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight"
    shape = _text("text encoder", shapes, tokens, positions, "text_model.encoder.layers.{}.mlp.fc1.weight")
    _same("text encoder", ldm_layout.clip(shape), shapes)
    return shape


def _open_clip(shapes: Shapes) -> TextShape:
    first = "transformer.resblocks.{}.mlp.c_fc.weight"
    shape = _text("second text encoder", shapes, "token_embedding.weight", "positional_embedding", first)
    _same("second text encoder", ldm_layout.open_clip(shape), shapes)
    return shape


def _text(part: str, shapes: Shapes, tokens: str, positions: str, inner: str) -> TextShape:
    shape = TextShape(
        vocabulary=_side(shapes, tokens, 0),
        positions=_side(shapes, positions, 0),
        width=_side(shapes, tokens, 1),
        inner=_side(shapes, inner.format(0), 0),
        layers=sum(1 for _ in takewhile(lambda number: inner.format(number) in shapes, range(_MAX_TEXT_LAYERS + 1))),
    )
    _bound(part, "positions", shape.positions, _MAX_POSITIONS)
    _bound(part, "features", shape.width, _MAX_TEXT_WIDTH)
    _bound(part, "features in its middle", shape.inner, 8 * _MAX_TEXT_WIDTH)
    _bound(part, "layers", shape.layers, _MAX_TEXT_LAYERS)
    return shape


def _check_fit(engine: Engine, unet: UNetShape, vae: VaeShape, texts: list[TextShape]) -> None:
    """Raise InvalidError for parts that are whole but of different models."""
    width = sum(text.width for text in texts)
    if unet.context != width:
        msg = f"the UNet attends to {unet.context} text features, but the file's text encoders make {width}"
        raise InvalidError(msg)
    if vae.latent_channels != unet.in_channels:
        msg = f"the UNet works on {unet.in_channels} latent channels, but the file's VAE makes {vae.latent_channels}"
        raise InvalidError(msg)
    numbers, rest = NUMBERS.get(engine), (unet.added or 0) - texts[-1].width
    if numbers and (rest <= 0 or rest % (2 * numbers)):
        msg = (
            f"the UNet's added embedding has {unet.added} features; it must have {texts[-1].width} for the pooled text, and the "
            f"same even number of features for each of {numbers} numbers"
        )
        raise InvalidError(msg)
    if engine is Engine.SD15 and unet.added is not None:
        msg = "the UNet has an added embedding, as in SDXL, but the file has the text encoder of SD 1.5"
        raise InvalidError(msg)


def _first(block: int) -> str:
    return f"input_blocks.{block}.0.out_layers.3.weight"


def _down(block: int) -> str:
    return f"input_blocks.{block}.0.op.weight"


def _depth(shapes: Shapes, name: str) -> int:
    block = f"{name}.transformer_blocks.{{}}.norm1.weight"
    return sum(1 for _ in takewhile(lambda number: block.format(number) in shapes, range(_MAX_DEPTH + 1)))


def _side(shapes: Shapes, name: str, number: int) -> int:
    """Return one dimension of a tensor, or 0 when there is none."""
    return sum(shapes.get(name, ())[number : number + 1])


def _bound(part: str, what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        msg = f"the checkpoint's {part} has {value} {what}; 1 to {most} are allowed"
        raise InvalidError(msg)


def _same(part: str, wanted: Shapes, found: Shapes) -> None:
    if difference := min(ldm_layout.differences(wanted, found), default=None):
        msg = f"the checkpoint's {part} differs from Stable Diffusion's releases: {difference}"
        raise InvalidError(msg)
