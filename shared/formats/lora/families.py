"""Names the model family of a file that is no LoRA for Stable Diffusion 1.5 or SDXL."""

import re
from collections.abc import Collection

from shared.errors import InvalidError

_START, _NUMBER = r"(^|[._])", r"[._]\d+[._]"
_BLOCKS = r"(^|\.|lora_unet_)blocks"
_PROJECTIONS = r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|c_attn|c_proj|q|k|v|qkv)"
_FLUX = "a LoRA for FLUX or another model of its kind (Chroma, HunyuanVideo)"
_FAMILIES = {
    rf"{_START}single_transformer_blocks[._]|^lora_transformer_single_": _FLUX,
    rf"^lora_te3_|{_START}joint_(transformer_)?blocks[._]": "a LoRA for Stable Diffusion 3",
    rf"{_START}(double|single)_blocks[._]": _FLUX,
    r"(img|txt)_(mod|mlp)[._]": "a LoRA for Qwen-Image",
    r"adaln_single|caption_projection": "a LoRA for PixArt",
    rf"{_START}motion_modules[._]|temporal_transformer": "a motion LoRA for AnimateDiff or a video model",
    r"^lora_prior_": "a LoRA for Stable Cascade",
    rf"{_BLOCKS}{_NUMBER}(self_attn|cross_attn|ffn)[._]": "a LoRA for Wan video",
    rf"{_BLOCKS}{_NUMBER}(attn|attn1|attn2|mlp|default_modulation|skip_linear)[._]": (
        "a LoRA for Hunyuan-DiT or a model of its kind"
    ),
    rf"{_START}(layers|noise_refiner|context_refiner){_NUMBER}(attention|feed_forward|adaLN_modulation)": (
        "a LoRA for Lumina, Z-Image or a model of their kind"
    ),
    r"^(base_model\.model\.)?(transformer\.(?!h\.)|lora_transformer_|(diffusion_model\.)?transformer_blocks\.)": (
        "a LoRA for a transformer model such as FLUX or Stable Diffusion 3"
    ),
    rf"{_START}(model|decoder|encoder|language_model|transformer)[._](layers|h|block){_NUMBER}"
    rf"(\w+\.)*(self_attn|attn|mlp|self_attention|attention|SelfAttention)[._]{_PROJECTIONS}": "a LoRA for a language model",
    rf"{_START}ip_adapter[._]|^image_proj[._]": "an IP-Adapter",
    rf"^lora_controlnet$|^control_model\.|{_START}input_hint_block[._]": "a ControlNet",
    r"^(emb_params|clip_l|clip_g|string_to_param\..*)$": ("a textual inversion, which has the asset type textual_inversion"),
    r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.(?!.*\.(lora|alpha|hada|lokr|diff|dora|oft))": (
        "a checkpoint, which has the asset type checkpoint"
    ),
}
_PATTERNS = [(re.compile(pattern), what) for pattern, what in _FAMILIES.items()]
_REMEDY = "choose a LoRA that was made for SD 1.5 or SDXL"
_SD2_WIDTH = 1024
_BY_FEATURES = {_SD2_WIDTH: "Stable Diffusion 2", 1280: "SDXL's refiner"}


def refuse(names: Collection[str]) -> None:
    """Raise InvalidError if the names of tensors that are unknown here are those of another family."""
    for pattern, what in _PATTERNS:
        if found := next((name for name in names if pattern.search(name)), None):
            msg = f"the file has {found[:200]!r}, as in {what}; {_REMEDY}"
            raise InvalidError(msg)


def refuse_width(width: int) -> None:
    """Raise InvalidError if a text encoder of this width is that of Stable Diffusion 2."""
    if width == _SD2_WIDTH:
        msg = f"the LoRA is for Stable Diffusion 2, whose text encoder is {width} wide; {_REMEDY}"
        raise InvalidError(msg)


def refuse_told(version: str) -> None:
    """Raise InvalidError if the metadata names Stable Diffusion 2, most of whose shapes are those of SD 1.5."""
    if version.startswith(("sd_v2", "stable-diffusion-v2", "sd_2")):
        msg = f"the LoRA is for Stable Diffusion 2: its metadata has {version[:100]!r}; {_REMEDY}"
        raise InvalidError(msg)


def refuse_features(features: Collection[int]) -> None:
    """Raise InvalidError if the width of the text that cross-attention takes is that of another family."""
    if len(features) == 1 and (family := _BY_FEATURES.get(width := next(iter(features)))):
        msg = f"the LoRA is for {family}: its cross-attention takes {width} features; 768 (SD 1.5) or 2048 (SDXL) are needed"
        raise InvalidError(msg)
