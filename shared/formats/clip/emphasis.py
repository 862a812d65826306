"""The weights in a prompt, in the syntax of AUTOMATIC1111's web UI, which OctoAI's `(word:1.5)` is a part of."""

import re
from dataclasses import dataclass

MOST = 10.0
"""Weights are cut to -10 to 10: beyond, the text encoder's values overflow half precision."""
STRONGER = 1.1
"""What `(x)` multiplies by, and `[x]` divides by."""
_OVERFLOW = 1e30
_PART = re.compile(
    r"""\\(?P<literal>[()\[\]\\])
    |(?P<open>[(\[])
    |:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    |(?P<close>[)\]])
    |\b(?P<end>BREAK)\b
    |(?P<text>(?:(?!\bBREAK\b)[^\\()\[\]:])+|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Weighted:
    """A prompt as text with weights."""

    sections: list[list[tuple[str, float]]]
    """The pieces between `BREAK`s, each with its weight; at least one section. Each section begins a new chunk of tokens."""
    is_cut: bool = False
    """Whether a weight was beyond `MOST`."""
    is_open: bool = False
    """Whether a bracket has no end, so that its weight counts up to the end of the prompt."""


@dataclass
class _Bracket:
    sign: str
    factor: float = 1.0


@dataclass
class _Piece:
    text: str


def plain(text: str) -> Weighted:
    """Return a text in which brackets have no meaning, such as a caption."""
    return Weighted([[(text, 1.0)]] if text.strip() else [[]])


def parse(prompt: str) -> Weighted:
    r"""Return the prompt's pieces with their weights.

    `(x)` counts 1.1 times, `[x]` 1 / 1.1 times, `(x:1.5)` 1.5 times; inside each other they multiply. `\(` is a plain bracket,
    and so is one that closes nothing. An open one counts up to the end. `BREAK` ends a section.
    """
    parts, still_open = _read(prompt)
    sections: list[list[tuple[str, float]]] = [[]]
    weights, is_cut = [1.0], False
    for part in parts:
        if isinstance(part, _Bracket):
            weights.append(_bounded(weights[-1] * part.factor))
        elif part is _CLOSE:
            weights.pop()
        elif part is _BREAK:
            sections.append([])
        elif part.text.strip():
            weight = min(max(weights[-1], -MOST), MOST)
            is_cut = is_cut or weight != weights[-1]
            _append(sections[-1], part.text, weight)
        elif sections[-1]:
            # White space separates words, whatever its weight.
            text, weight = sections[-1].pop()
            sections[-1].append((text + part.text, weight))
    return Weighted([section for section in sections if section] or [[]], is_cut, still_open)


_CLOSE, _BREAK = _Piece(")"), _Piece("BREAK")
"""Marks, which are compared by identity."""


def _read(prompt: str) -> tuple[list[_Bracket | _Piece], bool]:
    """Return the prompt's parts, with the factor of each bracket, and whether a bracket has no end."""
    parts: list[_Bracket | _Piece] = []
    opened: list[_Bracket] = []
    places: dict[str, list[int]] = {"(": [], "[": []}
    for found in _PART.finditer(prompt):
        kind = found.lastgroup
        closed = places["[" if found[0] == "]" else "("]
        if kind == "open":
            places[found[0]].append(len(opened))
            opened.append(_Bracket(found[0]))
            parts.append(opened[-1])
        elif kind in {"close", "weight"} and closed:
            place = closed.pop()
            # A bracket of the other kind that is still open inside ends here as well.
            for inner in opened[place + 1 :]:
                inner.factor = _factor(inner.sign)
                places[inner.sign].pop()
            opened[place].factor = _bounded(float(found["weight"])) if kind == "weight" else _factor(opened[place].sign)
            parts += [_CLOSE] * (len(opened) - place)
            del opened[place:]
        elif kind == "end":
            parts.append(_BREAK)
        else:
            parts.append(_Piece(found["literal"] or found[0]))
    for bracket in opened:
        bracket.factor = _factor(bracket.sign)
    return parts, bool(opened)


def _factor(sign: str) -> float:
    return STRONGER if sign == "(" else 1 / STRONGER


def _bounded(weight: float) -> float:
    """Return the weight within limits: a thousand brackets would make infinity, and infinity times 0 is no number."""
    return min(max(weight, -_OVERFLOW), _OVERFLOW)


def _append(section: list[tuple[str, float]], text: str, weight: float) -> None:
    """Join pieces of one weight: the tokenizer reads `a (red:1.0) cat` as it reads `a red cat`."""
    if section and section[-1][1] == weight:
        text = section.pop()[0] + text
    section.append((text, weight))
