"""The endpoints `/generate/{engine}`: the architecture and the default checkpoints of each."""

from dataclasses import dataclass

from shared.engines import Engine
from shared.errors import NotSupportedError


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: the architecture it draws with, and the checkpoints that fit it."""

    family: Engine
    """The architecture; it decides pipelines, sizes and prompts."""
    checkpoint_engine: Engine
    """The engine that a checkpoint must be registered as."""
    default_checkpoint: str
    controlnet_engine: Engine | None = None
    default_controlnet: str = ""


_SD15 = ("octoai:default-sd15", Engine.CONTROLNET_SD15, "octoai:canny_sd15")
_SDXL = ("octoai:default-sdxl", Engine.CONTROLNET_SDXL, "octoai:canny_sdxl")
ENDPOINTS: dict[str, Endpoint] = {
    "sd": Endpoint(Engine.SD15, Engine.SD15, _SD15[0]),
    "sdxl": Endpoint(Engine.SDXL, Engine.SDXL, _SDXL[0]),
    # SSD-1B is SDXL with fewer blocks.
    "ssd": Endpoint(Engine.SDXL, Engine.SSD, "octoai:default-ssd"),
    "controlnet-sd15": Endpoint(Engine.SD15, Engine.SD15, *_SD15),
    # octoai-sdk uses this name.
    "controlnet-sd": Endpoint(Engine.SD15, Engine.SD15, *_SD15),
    "controlnet-sdxl": Endpoint(Engine.SDXL, Engine.SDXL, *_SDXL),
}
NOT_OFFERED = ("upscaling", "background-removal", "adetailer", "segment", "creative-generator", "idea-generator")
"""The paths of OctoAI's image utilities."""


def find(engine: str) -> Endpoint:
    """Return the endpoint of this name. Raises NotSupportedError."""
    if engine not in ENDPOINTS:
        msg = f"engine: {engine[:50]!r} is not served here; choose from {', '.join(ENDPOINTS)}"
        raise NotSupportedError(msg)
    return ENDPOINTS[engine]
