"""The names of a LoRA's tensors in kohya-ss's and diffusers' layouts.

kohya-ss (sd-scripts, `networks/lora.py`) names the modules of SD 1.5 as diffusers does and those of SDXL as Stability AI's
release does, with underscores for dots. AUTOMATIC1111's web UI (`extensions-builtin/Lora/networks.py`), Forge, ComfyUI
(`comfy/lora.py`) and InvokeAI read both.
"""

import re
from dataclasses import dataclass

from shared.engines import Engine
from shared.formats.lora.keys import Factor
from shared.formats.lora.names import RELEASED_RESNET, RELEASED_SINGLES, Part
from shared.formats.lora.published import RESNETS

KOHYA_FACTORS = {
    Factor.DOWN: "lora_down.weight",
    Factor.UP: "lora_up.weight",
    Factor.MID: "lora_mid.weight",
    Factor.MAGNITUDE: "dora_scale",
}
"""Every other factor has the name that LyCORIS gave it."""
DIFFUSERS_FACTORS = {
    Factor.DOWN: "lora_A.weight",
    Factor.UP: "lora_B.weight",
    Factor.UP_BIAS: "lora_B.bias",
    Factor.MAGNITUDE: "lora_magnitude_vector",
}
_RESNET = {ours: theirs for theirs, ours in RELEASED_RESNET.items()}
_SINGLES = {ours: theirs for theirs, ours in RELEASED_SINGLES.items()}
_BLOCK = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<level>\d+)\.(?:(?P<kind>resnets|attentions)\.(?P<number>\d+)\.(?P<rest>.+)"
    r"|(?P<sampler>down|up)samplers\.0\.conv)"
)
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<number>\d)\.(?P<rest>.+)")
_TEXT = {Part.TEXT_ENCODER: "te1", Part.TEXT_ENCODER_2: "te2"}


@dataclass(frozen=True)
class Names:
    """The names that kohya-ss gives to the modules of a checkpoint; `is_full` for the published sizes."""

    engine: Engine
    is_full: bool

    def kohya(self, part: Part, module: str) -> str:
        """Return the name of a module, without the factor."""
        if part is Part.UNET:
            # The numbers of the release's blocks follow from the published sizes.
            is_released = self.engine is not Engine.SD15 and self.is_full
            return f"lora_unet_{_released(module) if is_released else module.replace('.', '_')}"
        text = _TEXT[part] if self.engine is not Engine.SD15 else "te"
        inner = "" if module == "text_projection" else "text_model_"
        return f"lora_{text}_{inner}{module.replace('.', '_')}"


def families(engine: Engine | None) -> dict[str, str]:
    """Return the metadata that names the family, in the words of kohya-ss and of Stability AI's model specification."""
    if engine is None:
        return {}
    is_sd15 = engine is Engine.SD15
    return {
        "ss_base_model_version": "sd_v1" if is_sd15 else "sdxl_base_v1-0",
        "modelspec.architecture": f"stable-diffusion-{'v1' if is_sd15 else 'xl-v1-base'}/lora",
    }


def _released(module: str) -> str:
    """Return the name of a module in Stability AI's release of SDXL."""
    if single := _SINGLES.get(module.replace(".", "_")):
        return single
    if found := _MIDDLE.fullmatch(module):
        is_attention = found["kind"] == "attentions"
        return f"middle_block_{1 if is_attention else 2 * int(found['number'])}_{_layer(is_attention, found['rest'])}"
    found = _BLOCK.fullmatch(module)
    assert found is not None, module  # noqa: S101 - the reader knows no other names
    level, blocks = int(found["level"]), RESNETS + 1
    if found["sampler"] == "down":
        return f"input_blocks_{(level + 1) * blocks}_0_op"
    if found["sampler"] == "up":
        # After the residual block and the attention of the level's last block; both levels of SDXL that are enlarged have one.
        return f"output_blocks_{level * blocks + RESNETS}_2_conv"
    is_attention = found["kind"] == "attentions"
    number = level * blocks + int(found["number"]) + (found["side"] == "down")
    place = f"{'input' if found['side'] == 'down' else 'output'}_blocks_{number}_{int(is_attention)}"
    return f"{place}_{_layer(is_attention, found['rest'])}"


def _layer(is_attention: bool, rest: str) -> str:
    return rest.replace(".", "_") if is_attention else _RESNET[rest]
