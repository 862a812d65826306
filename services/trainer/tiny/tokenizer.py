"""A small CLIP tokenizer: the bytes and the first merges of CLIP's own byte-pair vocabulary."""

import gzip
from pathlib import Path

from transformers import CLIPTokenizer

MERGES = 3000
MAX_TOKENS = 32
END = "<|endoftext|>"


def build(vocabulary: Path, *, pad_token: str = END, max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """Build the tokenizer from `bpe_simple_vocab_16e6.txt.gz` (OpenAI CLIP, MIT licence)."""
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = list(_bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=max_tokens, pad_token=pad_token
    )


def _bytes_to_unicode() -> dict[int, str]:
    """Map each byte to a printable character, as GPT-2 and CLIP do."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    mapped = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in mapped:
            mapped[byte] = chr(256 + len(mapped) - len(plain))
    return mapped
