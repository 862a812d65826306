"""The model families that can be tuned and served, by the names that OctoAI's API gives them."""

from enum import StrEnum


class Engine(StrEnum):
    """An architecture: LoRAs and checkpoints of one engine do not fit another."""

    SD15 = "image/stable-diffusion-v1-5"
    SDXL = "image/stable-diffusion-xl-v1-0"
