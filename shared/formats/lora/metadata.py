"""What the metadata of a LoRA file tells: trigger words, engine, and the alphas of diffusers' own files."""

import math
import re
from typing import Any, cast

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import strict_json
from shared.formats.lora.names import Part

_WORD = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Half a surrogate pair is text to JSON, and to no database."""
_MAX_WORDS = 5
_ARCHITECTURES = {
    "stable-diffusion-v1": Engine.SD15,
    "stable-diffusion-xl-v1": Engine.SDXL,
    "sd_v1": Engine.SD15,
    "sd_1.5": Engine.SD15,
    "sdxl": Engine.SDXL,
}
"""Engines by the beginnings of the values of `modelspec.architecture` and `ss_base_model_version`."""


def engine(metadata: dict[str, str]) -> Engine | None:
    """Return the engine that kohya-ss (`ss_*`) or Stability AI's model specification (`modelspec.*`) names.

    The specification: github.com/Stability-AI/ModelSpec.
    """
    told = [metadata.get(key, "").lower() for key in ("modelspec.architecture", "ss_base_model_version")]
    return next((engine for value in told for start, engine in _ARCHITECTURES.items() if value.startswith(start)), None)


def trigger_words(metadata: dict[str, str]) -> list[str]:
    """Return the words that the LoRA was trained with, as far as the file tells."""
    for key in ("trigger_word", "modelspec.trigger_phrase"):
        if _WORD.fullmatch(word := metadata.get(key, "").strip()):
            return [word]
    return _common_tags(metadata)


class Alphas:
    """The alphas in `lora_adapter_metadata`, where diffusers keeps PEFT's configuration of each part.

    Without them a reader takes the rank for alpha, and the LoRA acts more or less than it was trained to.
    """

    def __init__(self, metadata: dict[str, str]) -> None:
        self._config = _document(metadata.get("lora_adapter_metadata"))

    def of(self, part: Part, module: str, rank: int) -> tuple[float, float] | None:
        """Return alpha, and what it is divided by, for a module; None where the metadata does not tell."""
        config = {key.removeprefix(f"{part}."): value for key, value in self._config.items() if key.startswith(f"{part}.")}
        alpha = _number(_of_module(config.get("alpha_pattern"), module)) or _number(config.get("lora_alpha"))
        if alpha is None:
            return None
        # Rank-stabilised LoRA (Kalajdzievski 2023).
        return alpha, math.sqrt(rank) if config.get("use_rslora") is True else rank


def _of_module(patterns: Any, module: str) -> Any:
    """Return the value for a module; PEFT's patterns are the ends of its name."""
    found = [value for pattern, value in _object(patterns).items() if f".{module}".endswith(f".{pattern.lstrip('^.')}")]
    return found[0] if found else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _common_tags(metadata: dict[str, str]) -> list[str]:
    """Return the tags that every caption of a folder has: the words that a LoRA of kohya-ss was trained with.

    `ss_tag_frequency` has the number of each tag in a folder's captions, `ss_dataset_dirs` the number of its images.
    """
    frequencies, folders = (_document(metadata.get(key)) for key in ("ss_tag_frequency", "ss_dataset_dirs"))
    common: list[str] = []
    for folder, tags in frequencies.items():
        images = _object(folders.get(folder)).get("img_count")
        if isinstance(images, int) and images > 0:
            common += [tag.strip() for tag, times in _object(tags).items() if isinstance(times, int) and times >= images]
    return [word for word in dict.fromkeys(common) if _WORD.fullmatch(word)][:_MAX_WORDS]


def _document(text: str | None) -> dict[str, Any]:
    try:
        return strict_json.load_object((text or "{}").encode(errors="replace"), "the metadata")
    except InvalidError:
        return {}


def _object(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
