"""What a caption says without its trigger word: the prompt of a tune's class, for which the base keeps what it knows."""

import re

from shared.formats.clip.words import composed, find

GENERAL_PROMPT = "a photo"
"""The class prompt of a caption that names no class. It is never the empty prompt: that one is for guidance."""
_LEADS_TO = re.compile(
    r"(?:^|(?<=[\s,;:(]))(?:in the (?:style|manner) of|by|of|in|on|with|from|for|at|as|and|or|named|called|an?|the|my|this)\s*$",
    re.IGNORECASE,
)
"""Words that mean nothing at the end of a phrase."""
_LEADS_ON = re.compile(
    r"\s*(?:$|[^\w\s]|(?:in|on|at|by|of|with|from|for|to|near|under|over|behind|before|and|or|is|are|was|as|who|that|which|"
    r"wearing|holding|sitting|standing|lying|looking|walking|running|riding)\b)",
    re.IGNORECASE,
)
"""What follows a trigger word that stands alone, without the name of its class."""
_BEFORE_STYLE = re.compile(r"\b(?:(?:style|manner) of|by)\s+(?:an?\s+|the\s+)?$", re.IGNORECASE)
_AFTER_STYLE = re.compile(r"[\s-]*(?:art\s*)?style\b", re.IGNORECASE)
_EMPTY_WORDS = {"a", "an", "the", "of", "in", "by", "with", "and", "s"}


def class_prompt(caption: str, trigger_word: str) -> str:
    """Return the caption without the trigger word: "a photo of a sks1 dog" gives "a photo of a dog".

    A caption without a class gives `GENERAL_PROMPT`. So does one without the trigger word: with its own text as class prompt, a
    tune would pull one prompt towards the subject and back.
    """
    text = composed(caption)
    spans = find(text, trigger_word)
    if not spans:
        return GENERAL_PROMPT
    for start, end in reversed(spans):
        before, after = text[:start], re.sub(r"^['\u2019]s\b", "", text[end:])
        if _LEADS_ON.match(after):
            # The trigger word was the noun: what led to it goes too, or "in the style of" would lead to the next words.
            while (shorter := _LEADS_TO.sub("", before)) != before:
                before = shorter
        text = f"{before} {after}"
    text = re.sub(r"\s+(?=[,.;:!?)])|(?<=\()\s+", "", composed(text))
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text).strip(" ,.;:-")
    words = set(re.findall(r"[^\W_]+", text.lower()))
    return text if words - _EMPTY_WORDS else GENERAL_PROMPT


def names_a_style(caption: str, trigger_word: str) -> bool:
    """Return whether the trigger word stands for a style: "a house in the style of sks1", "sks1 style", "painted by sks1"."""
    text = composed(caption)
    spans = find(text, trigger_word)
    return bool(spans) and all(_BEFORE_STYLE.search(text[:start]) or _AFTER_STYLE.match(text[end:]) for start, end in spans)
