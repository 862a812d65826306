"""What a training needs of a GPU's memory: one estimate for the advice, the API, and the engine, which decides by it.

The figures are counted on the published configurations of SD 1.5 and SDXL, with fake tensors and autocast
(`tests/integration/test_step_memory.py`). A base of another shape counts by its own weights.
"""

from dataclasses import dataclass, replace

from shared.engines import Engine

SMALL_PX = 256
"""A checkpoint with a smaller native size is small: it has other defaults, and a CPU can train it."""
GIB = 2**30
PROCESS_BYTES = 0.9 * GIB
"""The CUDA context and the libraries' buffers."""
_USABLE = 0.92
"""The part of a GPU's free memory that is planned: the allocator cannot use every gap."""
_BYTES_A_TRAINED = {"adamw": 16, "adafactor": 9}
"""Weight, gradient and moments in fp32; of the second moment, adafactor keeps only rows and columns."""


@dataclass(frozen=True)
class Weights:
    """The number of a base's weights."""

    unet: int
    text: int
    vae: int

    def scaled(self, factor: float) -> "Weights":
        """Return the weights of a base of the same kind that is smaller or larger by this factor."""
        return Weights(*(round(count * factor) for count in (self.unet, self.text, self.vae)))

    @property
    def total(self) -> int:
        """All of them."""
        return self.unet + self.text + self.vae


@dataclass(frozen=True)
class _Counted:
    weights: Weights
    native_px: int
    kept: float
    """GiB that the backward pass needs of one image at the native size."""
    checkpointed: float
    """The same when the backward pass computes the activations again."""
    encoding: float
    """GiB that the VAE needs to encode one image at the native size in fp32."""
    decoding: float
    text: float
    """GiB that the backward pass of trained text encoders needs of one caption."""
    adapter: int
    """Trained weights of the UNet for each unit of rank."""
    text_adapter: int


PUBLISHED = {
    Engine.SD15: Weights(859_520_964, 123_060_480, 83_653_863),
    Engine.SDXL: Weights(2_567_463_684, 817_720_320, 83_653_863),
}
_COUNTED = {
    Engine.SD15: _Counted(PUBLISHED[Engine.SD15], 512, 1.02, 0.27, 0.63, 0.75, 0.05, 423_936, 73_728),
    Engine.SDXL: _Counted(PUBLISHED[Engine.SDXL], 1024, 7.09, 0.5, 2.5, 3.0, 0.26, 2_659_840, 401_408),
}


@dataclass(frozen=True)
class Load:
    """A training, as far as its memory depends on it."""

    engine: Engine
    weights: Weights
    rows: int
    """Of a step: its training images, and what it has for the prior."""
    resolution_px: int
    rank: int
    optimizer: str = "adamw"
    trains_text: bool = False
    samples: bool = False
    checkpointing: bool = False
    rows_at_once: int | None = None
    """The rows of one forward and backward pass; by default all."""


@dataclass(frozen=True)
class Need:
    """Bytes of a GPU's memory, by what needs them; `total` is what the training needs at its peak."""

    process: float
    base: float
    """The frozen weights that stay while steps run."""
    adapter: float
    activations: float
    encoding: float
    """All weights and the VAE's activations, while images and captions are encoded."""
    drawing: float
    """The UNet's and the VAE's weights and activations while validation images are drawn, 0 if there are none."""

    @property
    def total(self) -> int:
        """The peak of all phases."""
        steps, drawing = self.base + self.adapter + self.activations, self.drawing + self.adapter
        return int(self.process + max(steps, self.encoding, drawing if self.drawing else 0.0))


def weights_of(engine: Engine, native_px: int, file_bytes: int, data_type: str | None) -> Weights:
    """Return the weights of a base by its file: the published ones, or a part of them for a small base."""
    published = PUBLISHED[engine]
    if native_px >= SMALL_PX:
        return published
    return published.scaled(file_bytes / (4 if data_type == "fp32" else 2) / published.total)


def need(load: Load) -> Need:
    """Return what a training needs of a GPU: UNet and text encoders in half precision, VAE and adapters in fp32."""
    counted = _COUNTED[load.engine]
    area = (load.resolution_px / counted.native_px) ** 2
    rows = min(load.rows, load.rows_at_once or load.rows)
    size = load.weights.unet / counted.weights.unet
    trained = load.rank * size * (counted.adapter + (counted.text_adapter if load.trains_text else 0))
    # A small base is narrower, and its activations shrink with the width, which is the root of its weights.
    activations = rows * area * size**0.5 * (counted.checkpointed if load.checkpointing else counted.kept)
    if load.trains_text:
        activations += rows * counted.text * size**0.5
    text = 0 if load.trains_text else 2 * load.weights.text
    whole = 2 * (load.weights.unet + load.weights.text) + 4 * load.weights.vae
    return Need(
        process=PROCESS_BYTES,
        base=2 * (load.weights.unet + (load.weights.text if load.trains_text else 0)),
        adapter=trained * _BYTES_A_TRAINED[load.optimizer],
        activations=activations * GIB,
        encoding=whole + counted.encoding * size**0.5 * area * GIB,
        # Validation images have the native size.
        drawing=whole - text + counted.decoding * size**0.5 * GIB if load.samples else 0.0,
    )


def fitted(load: Load, total_bytes: float) -> Load | None:
    """Return the load as it fits a GPU of this size, None if it does not.

    Recomputing activations comes first, since it costs a third of the speed; then fewer rows at once.
    """
    at_once = load.rows
    tries = [load, replace(load, checkpointing=True)]
    while at_once > 1:
        at_once = -(-at_once // 2)
        tries.append(replace(load, checkpointing=True, rows_at_once=at_once))
    return next((one for one in tries if need(one).total <= total_bytes * _USABLE), None)


def refusal(load: Load, total_bytes: float) -> str:
    """Return the sentence that refuses a training which `fitted` found too large, with the numbers."""
    least = need(replace(load, checkpointing=True, rows_at_once=1))
    coding = max(least.encoding, least.drawing)
    parts = (
        f"{least.base / GIB:.1f} for the base, {least.activations / GIB:.1f} for one image at {load.resolution_px} px, "
        f"{least.adapter / GIB:.1f} for rank {load.rank}; {coding / GIB:.1f} in all to encode and draw images"
    )
    return (
        f"the tune needs {least.total / GIB:.1f} GiB of GPU memory even with recomputed activations and one image at a time "
        f"({parts}), and the trainer can use {total_bytes * _USABLE / GIB:.1f} of its {total_bytes / GIB:.1f} GiB; lower the "
        "resolution or the rank, or run a trainer on a larger GPU"
    )
