"""CLIP's tokenizer, with a vocabulary of any size, written as files that transformers reads; without torch.

`bpe_simple_vocab_16e6.txt.gz` is OpenAI's vocabulary (github.com/openai/CLIP, MIT licence): merges, the most frequent first. CLIP
uses the first 48,894 of them, which makes 49,408 tokens: each byte, each byte at the end of a word, each merge, start and end. A
smaller text encoder uses fewer merges, so the size of its vocabulary tells which.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from shared.errors import InvalidError

FULL, LEAST = 49_408, 514
"""The number of tokens of CLIP's own tokenizer, and of one without merges."""
POSITIONS = 77
"""Of CLIP's text encoders."""
START, END = "<|startoftext|>", "<|endoftext|>"
_FILE = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")


def write(folder: Path, *, vocabulary: int, positions: int, pad: str = END) -> None:
    """Write the tokenizer of a text encoder with a vocabulary of this size, for prompts of at most `positions` tokens.

    Raises InvalidError for a size that CLIP's merges do not make.
    """
    check(vocabulary)
    used = merges()[: vocabulary - LEAST]
    alphabet = letters().values()
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(merge) for merge in used), START, END]
    folder.mkdir(parents=True)
    numbers = json.dumps({word: number for number, word in enumerate(words)}, ensure_ascii=False)
    (folder / "vocab.json").write_text(numbers, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in used)]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    document = special | {"model_max_length": positions, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(document, indent=2))


def write_for(folder: Path, config: dict[str, Any]) -> None:
    """Write the tokenizer of a text encoder with this `config.json`. SDXL's second one, `tokenizer_2`, pads with `!`."""
    positions = config.get("max_position_embeddings", POSITIONS)
    write(folder, vocabulary=config.get("vocab_size", FULL), positions=positions, pad="!" if folder.name.endswith("_2") else END)


def check(vocabulary: int) -> None:
    """Raise InvalidError unless CLIP's merges make a vocabulary of this size."""
    if not LEAST <= vocabulary <= FULL:
        msg = f"the text encoder has a vocabulary of {vocabulary} tokens; CLIP's tokenizer has {LEAST} to {FULL}"
        raise InvalidError(msg)


@cache
def merges() -> list[tuple[str, str]]:
    """Return CLIP's merges, the most frequent first."""
    with gzip.open(_FILE, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    # The first line has the file's version.
    return [(first, second) for first, second in (line.split() for line in lines[1 : FULL - LEAST + 1])]


@cache
def letters() -> dict[int, str]:
    """Return a printable letter for each byte, in CLIP's order: the printable bytes themselves, then letters for the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}
