"""The model families that can be tuned and served, by the names that OctoAI's API gives them."""

from enum import StrEnum


class Engine(StrEnum):
    """An architecture. A LoRA or a checkpoint of one engine does not fit another."""

    SD15 = "image/stable-diffusion-v1-5"
    SDXL = "image/stable-diffusion-xl-v1-0"
    SSD = "image/stable-diffusion-ssd"
    """SSD-1B: SDXL with fewer blocks, the same pipelines and the same sizes."""
    SDXL_REFINER = "image/stable-diffusion-xl-refiner"
    """The model that finishes SDXL's images (Podell et al. 2023, section 2.5); it has SDXL's second text encoder only."""
    CONTROLNET_SD15 = "image/controlnet-sd15"
    CONTROLNET_SDXL = "image/controlnet-sdxl"


FAMILIES = (Engine.SD15, Engine.SDXL)
"""The engines whose checkpoints can be tuned. Each has its own pipelines."""


FULL_SIZE_SHAPES: dict[Engine, str] = {Engine.SD15: "sd15-7411a98b", Engine.SDXL: "sdxl-e049febd"}
"""The shape classes of the published checkpoints. LoRAs that were trained elsewhere are made for these, but do not name them."""
