"""What the syntax of prompts means: weights, sections, and what is taken out or named in a notice."""

import pytest

from services.inference.syntax import cleaned
from shared.formats.clip.emphasis import MOST, parse, plain
from tests.support.cpu_time import bounded_cpu

UP, DOWN = 1.1, 1 / 1.1
# The examples of the web UI's own documentation of its syntax, and OctoAI's of nested weights.
MEANINGS = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", UP), (" word", 1.0)],
    "((x)) and [x], [[x]]": [("x", UP**2), (" and ", 1.0), ("x", DOWN), (", ", 1.0), ("x", DOWN**2)],
    "(unbalanced": [("unbalanced", UP)],
    r"\(literal\] back\slash": [(r"(literal] back\slash", 1.0)],
    "(house:1.3) (hill: .5 ) (sky:2.)": [("house ", 1.3), ("hill ", 0.5), ("sky", 2.0)],
    "(A tall (beautiful:1.5) woman:1.0)": [("A tall ", 1.0), ("beautiful", 1.5), (" woman", 1.0)],
    "((a:2) b:0.5)": [("a", 1.0), (" b", 0.5)],
    "[(a:2) b]": [("a", 2.0 * DOWN), (" b", DOWN)],
    "(old:0) (gone:-1)": [("old ", 0.0), ("gone", -1.0)],
    "16:9, a cat :) b]": [("16:9, a cat :) b]", 1.0)],
    "a (red:1.0) cat": [("a red cat", 1.0)],
    "(x:1.5.2) (y:)": [("x:1.5.2 y:", UP)],
    "(a [b) c]": [("a ", UP), ("b c]", 1.0)],
}


@pytest.mark.parametrize("prompt", MEANINGS)
def test_brackets_weigh_as_in_the_web_ui(prompt: str) -> None:
    [section] = parse(prompt).sections

    expected = MEANINGS[prompt]
    assert [text for text, _ in section] == [text for text, _ in expected]
    assert [weight for _, weight in section] == pytest.approx([weight for _, weight in expected])


def test_break_ends_a_section_and_is_a_word_of_its_own_in_capitals() -> None:
    assert parse("a BREAK (b BREAK c:1.5), BREAKFAST break").sections == [
        [("a ", 1.0)],
        [("b ", 1.5)],
        [(" c", 1.5), (", BREAKFAST break", 1.0)],
    ]
    assert parse("BREAK BREAK").sections == parse("").sections == [[]]


def test_weights_are_limited_and_stay_numbers() -> None:
    nested = "(" * 4000 + "x" + ")" * 4000
    for prompt in ("(x:11)", nested, f"(({nested}:0) x:{'9' * 400})"):
        weights = [weight for section in parse(prompt).sections for _, weight in section]
        assert weights == [0.0, MOST] if ":0" in prompt else [MOST]
        assert parse(prompt).is_cut
    assert [weight for _, weight in parse("(x:-99)").sections[0]] == [-MOST]
    assert not parse(f"(x:{MOST})").is_cut


@pytest.mark.parametrize("part", ["[", ")", "(a", "BREAK ", "[:", ":", "<lora:", "\\", "(:1 "])
def test_a_prompt_of_brackets_is_read_in_linear_time(part: str) -> None:
    with bounded_cpu():
        cleaned("prompt", "[" + part * 100_000 + ")")


def test_in_a_caption_brackets_are_text() -> None:
    assert plain("a (red:1.5) cat BREAK").sections == [[("a (red:1.5) cat BREAK", 1.0)]]


def test_a_lora_in_a_prompt_is_taken_out_and_a_notice_names_the_field() -> None:
    prompt, notices = cleaned("negative_prompt", "a cat <lora:My style:0.8>, <LYCO:b:1:2><lora:My style:0.8> <sks>")

    assert prompt == "a cat ,  <sks>"
    assert [notice.split(" was")[0] for notice in notices] == [
        "negative_prompt: <lora:My style:0.8>",
        "negative_prompt: <LYCO:b:1:2>",
    ]
    assert all(notice.endswith("name the LoRA in loras") for notice in notices)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("(x:99)", "weights are limited to -10 to 10"),
        ("a (cat", "is not closed"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5] does not change the prompt"),
        ("a [cat|dog]", "[cat|dog] does not change the prompt"),
        ("a cat AND a dog", "AND does not combine prompts"),
    ],
)
def test_what_is_not_drawn_as_it_may_be_meant_gets_a_notice(prompt: str, named: str) -> None:
    drawn, [notice] = cleaned("prompt", prompt)

    assert drawn == prompt
    assert notice.startswith("prompt: ")
    assert named in notice


@pytest.mark.parametrize(
    "prompt", ["a ((cat)), [dog], (red:1.2), 16:9", r"a smile :), \[a:b\] \(c", "[(cat:1.2), dog]", "sand and sea", ""]
)
def test_what_is_drawn_as_meant_gets_none(prompt: str) -> None:
    assert cleaned("prompt", prompt) == (prompt, [])
