"""Splits the name of a tensor in a LoRA file into the module that it changes and the factor that it is.

The programs that write LoRAs use different names for the same factors. `Factor` has one for each.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import InvalidError


class Factor(StrEnum):
    """What a tensor is to the change of its module."""

    DOWN = "down"
    UP = "up"
    UP_BIAS = "up_bias"
    MID = "mid"
    """The kernel of a convolution in three parts."""
    ALPHA = "alpha"
    MAGNITUDE = "magnitude"
    """DoRA's norms (Liu et al. 2024)."""
    HADA_W1_A = "hada_w1_a"
    HADA_W1_B = "hada_w1_b"
    HADA_W2_A = "hada_w2_a"
    HADA_W2_B = "hada_w2_b"
    HADA_T1 = "hada_t1"
    HADA_T2 = "hada_t2"
    LOKR_W1 = "lokr_w1"
    LOKR_W1_A = "lokr_w1_a"
    LOKR_W1_B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2_A = "lokr_w2_a"
    LOKR_W2_B = "lokr_w2_b"
    LOKR_T2 = "lokr_t2"
    DIFF = "diff"
    """A change of the weight as it is."""
    DIFF_BIAS = "diff_b"


@dataclass(frozen=True)
class Key:
    """The parts of a tensor's name."""

    module: str
    """The name of the module, as the file has it."""
    factor: Factor
    adapter: str | None
    """PEFT's name of the adapter, where the file keeps it."""


_ADAPTER = r"(?:\.(?!(?:weight|bias)$)(?P<adapter>[A-Za-z0-9_-]{1,100}))?"
# diffusers, kohya-ss, PEFT, and diffusers of 2023: `to_q_lora.down`, `to_q.lora.down`, `q_proj.lora_linear_layer.down`.
_PATTERNS = [
    (Factor.DOWN, rf"(?:\.lora_down|[._]lora\.down|\.lora_linear_layer\.down|\.lora_A{_ADAPTER})(?:\.weight)?"),
    (Factor.UP, rf"(?:\.lora_up|[._]lora\.up|\.lora_linear_layer\.up|\.lora_B{_ADAPTER})(?:\.weight)?"),
    (Factor.UP_BIAS, rf"(?:\.lora_up|\.lora_B{_ADAPTER})\.bias"),
    (Factor.MID, r"\.lora_mid\.weight"),
    (Factor.ALPHA, r"(?:[._]lora|\.lora_linear_layer)?\.alpha"),
    (Factor.MAGNITUDE, rf"(?:\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?|(?:[._]lora)?\.dora_scale)"),
    (Factor.DIFF, r"\.(?:diff|w_norm)"),
    (Factor.DIFF_BIAS, r"\.(?:diff_b|b_norm)"),
    *((factor, rf"\.{factor}{_ADAPTER}") for factor in Factor if factor.startswith(("hada_", "lokr_"))),
]
_SUFFIXES = [(factor, re.compile(rf"(?P<module>.+?){pattern}")) for factor, pattern in _PATTERNS]
_UNSUPPORTED = {
    re.compile(r"\.(oft_|boft_)"): "OFT",
    re.compile(r"\.(on_input|ia3_l)"): "IA3",
    re.compile(r"\.[ab][12]\.weight$"): "GLoRA",
    re.compile(r"\.vera_|vera_A|vera_B"): "VeRA",
    re.compile(r"\.lora_embedding_[AB]"): "a LoRA of token embeddings",
    re.compile(r"\.bias_(indices|values|size)$"): "a sparse bias of an early LyCORIS",
    re.compile(r"\.modules_to_save\."): "a whole layer that PEFT saved (modules_to_save)",
    re.compile(r"\.(reshape_weight|set_weight)$"): "a layer of another shape than the checkpoint's",
}


def split(name: str) -> Key | None:
    """Return the parts of a tensor's name, None for a name outside of LoRAs. Raises InvalidError for an unsupported kind."""
    for factor, pattern in _SUFFIXES:
        if found := pattern.fullmatch(name):
            return Key(found["module"], factor, found.groupdict().get("adapter"))
    for pattern, what in _UNSUPPORTED.items():
        if pattern.search(name):
            msg = (
                f"the LoRA's {name[:200]!r} is {what}, which is not supported; LoRA, LoCon, DoRA, LoHa, LoKr and changes of "
                "biases and norms are: train or extract one of these"
            )
            raise InvalidError(msg)
    return None
