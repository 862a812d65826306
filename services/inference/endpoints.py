"""The paths of `/generate/...`, and what stands behind each."""

from dataclasses import dataclass

from shared.engines import Engine
from shared.errors import NotSupportedError


@dataclass(frozen=True)
class Path:
    """One path: the architecture it draws with, and the checkpoints that fit it."""

    family: Engine
    """The architecture, which the pipelines, the sizes and the prompts follow."""
    checkpoint_engine: Engine
    """The engine that a checkpoint must be registered as."""
    default_checkpoint: str
    controlnet_engine: Engine | None = None
    default_controlnet: str = ""


_SD15 = ("octoai:default-sd15", Engine.CONTROLNET_SD15, "octoai:canny_sd15")
_SDXL = ("octoai:default-sdxl", Engine.CONTROLNET_SDXL, "octoai:canny_sdxl")
PATHS: dict[str, Path] = {
    "sd": Path(Engine.SD15, Engine.SD15, _SD15[0]),
    "sdxl": Path(Engine.SDXL, Engine.SDXL, _SDXL[0]),
    # SSD-1B is SDXL with fewer blocks.
    "ssd": Path(Engine.SDXL, Engine.SSD, "octoai:default-ssd"),
    "controlnet-sd15": Path(Engine.SD15, Engine.SD15, *_SD15),
    # What octoai-sdk asks for.
    "controlnet-sd": Path(Engine.SD15, Engine.SD15, *_SD15),
    "controlnet-sdxl": Path(Engine.SDXL, Engine.SDXL, *_SDXL),
}
ELSEWHERE = ("upscaling", "background-removal", "adetailer", "segment", "creative-generator", "idea-generator")
"""OctoAI's image utilities, none of which is offered."""


def find(engine: str) -> Path:
    """Return the path of this name. Raises NotSupportedError."""
    if engine not in PATHS:
        msg = f"engine: {engine[:50]!r} is not served here; choose from {', '.join(PATHS)}"
        raise NotSupportedError(msg)
    return PATHS[engine]
