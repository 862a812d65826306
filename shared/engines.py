"""The model families that can be tuned and served, by the names that OctoAI's API gives them."""

from enum import StrEnum


class Engine(StrEnum):
    """An architecture: LoRAs and checkpoints of one engine do not fit another."""

    SD15 = "image/stable-diffusion-v1-5"
    SDXL = "image/stable-diffusion-xl-v1-0"
    SSD = "image/stable-diffusion-ssd"
    """SDXL with fewer blocks: its pipelines, its sizes."""
    SDXL_REFINER = "image/stable-diffusion-xl-refiner"
    """What finishes SDXL's pictures (Podell et al. 2023, section 2.5): the second of its text encoders alone."""
    CONTROLNET_SD15 = "image/controlnet-sd15"
    CONTROLNET_SDXL = "image/controlnet-sdxl"


FAMILIES = (Engine.SD15, Engine.SDXL)
"""The engines whose checkpoints can be tuned; each has pipelines of its own."""


FULL_SIZE_SHAPES: dict[Engine, str] = {Engine.SD15: "sd15-7411a98b", Engine.SDXL: "sdxl-e049febd"}
"""The shape classes of the published checkpoints, which other people's LoRAs are made for and do not say."""
