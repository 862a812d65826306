"""The syntax of prompts: takes out what chooses models, and says what is not drawn as it may be meant."""

import re

from shared.formats.clip.emphasis import MOST, STRONGER, parse

_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
_SQUARE = re.compile(r"\[[^\[\]]*\]")
_COMPOSITION = re.compile(r"\bAND\b")
_LONGEST_QUOTE = 60


def cleaned(field: str, prompt: str) -> tuple[str, list[str]]:
    """Return the prompt as it is drawn, and notices about it.

    The text of an application's users must not choose the account's LoRAs, so `<lora:name:0.8>` has no effect.
    """
    notices = [
        f"{field}: {_quoted(tag)} was taken out, because a prompt does not choose LoRAs; name the LoRA in loras"
        for tag in dict.fromkeys(_NETWORK.findall(prompt))
    ]
    prompt = _NETWORK.sub("", prompt)
    read = parse(prompt)
    if read.is_cut:
        notices.append(f"{field}: weights are limited to {-MOST:g} to {MOST:g}; the nearest limit was used")
    if read.is_open:
        notices.append(
            f"{field}: a ( or [ is not closed, so its weight ({STRONGER:g} or 1/{STRONGER:g}) holds up to the end; "
            r"write \( or \[ for a plain bracket"
        )
    # A backslash makes a bracket plain, and weights in parentheses may stand inside square brackets.
    bare = re.sub(r"\\[()\[\]]|:[\s+\d.-]+(?=\))", "", prompt)
    if editing := next((found for found in _SQUARE.findall(bare) if ":" in found or "|" in found), None):
        notices.append(f"{field}: {_quoted(editing)} does not change the prompt between steps here; it is read as text")
    if _COMPOSITION.search(prompt):
        notices.append(f"{field}: AND does not combine prompts here; it is read as a word")
    return prompt, notices


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
