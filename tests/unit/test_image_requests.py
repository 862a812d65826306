"""How image requests are resolved, without a backend: sizes, seeds, styles and notices."""

import re
from pathlib import Path

import pytest

from services.inference import notices, sizes, styles
from services.inference.endpoints import ENDPOINTS
from services.inference.resolve import choose_seeds
from services.inference.schemas import GenerateRequest, Sampler
from shared.engines import Engine
from shared.errors import InvalidError

DOCS = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_an_integer_seed_counts_up_and_wraps_around() -> None:
    assert choose_seeds(2**32 - 2, 4) == [2**32 - 2, 2**32 - 1, 0, 1]
    assert choose_seeds([5, None], 3)[0] == 5
    assert all(0 <= seed < 2**32 for seed in choose_seeds(None, 16))


@pytest.mark.parametrize(
    ("asked", "init", "expected"),
    [
        ((768, 512), (10, 10), (768, 512)),
        (None, (512, 768), (512, 768)),
        (None, (1500, 1000), (1536, 1024)),
        (None, (2000, 2000), (1024, 1024)),
        (None, None, (512, 512)),
    ],
)
def test_without_a_size_the_one_nearest_to_the_image_is_used(
    asked: tuple[int, int] | None, init: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    assert sizes.choose(Engine.SD15, asked, init) == expected


def test_every_size_of_octoais_tables_is_allowed() -> None:
    assert len(sizes.ALLOWED[Engine.SD15]) == 25
    assert {(640, 1536), (1024, 1024), (512, 832), (896, 896)} <= sizes.ALLOWED[Engine.SDXL]
    with pytest.raises(InvalidError, match="1x1"):
        sizes.choose(Engine.SDXL, (1, 1), None)


def test_a_style_adds_words_to_both_prompts_and_base_adds_none() -> None:
    assert styles.apply("base", "a cat", "") == ("a cat", "")
    assert styles.apply(None, "a cat", "dogs") == ("a cat", "dogs")
    prompt, negative = styles.apply("Film Noir", "a cat", "dogs")
    assert prompt.startswith("a cat, ")
    assert negative.startswith("dogs, ")
    with pytest.raises(InvalidError, match="style_preset: 'Cubism' is unknown; choose one of base"):
        styles.apply("Cubism", "a cat", "")


def test_every_style_is_documented_and_all_differ() -> None:
    table = styles.table()
    assert len({(style.prompt, style.negative) for style in table.values()}) == len(table) == 77
    # A line break may fall inside a name.
    assert {name for name in table if f"`{name}`" not in " ".join(DOCS.split())} == set()


def test_the_documented_samplers_are_those_of_the_api() -> None:
    section = DOCS.split("## Samplers")[1].split("\n## ")[0]

    assert re.findall(r"^\| `([A-Z0-9_]+)` \|", section, re.MULTILINE) == [sampler.value for sampler in Sampler]


@pytest.mark.parametrize(
    ("engine", "body", "named"),
    [
        ("sd", {"prompt_2": "x"}, "prompt_2"),
        ("sd", {"negative_prompt_2": "x"}, "negative_prompt_2"),
        ("sd", {"style_preset": "anime"}, "style_preset"),
        ("sd", {"use_refiner": True}, "use_refiner"),
        ("sd", {"strength": 0.5}, "strength"),
        ("sd", {"inpaint_full_res": True}, "inpaint_full_res"),
        ("sd", {"inpaint_full_res_padding": 3}, "inpaint_full_res_padding"),
        ("sd", {"controlnet_conditioning_scale": 0.5}, "controlnet_conditioning_scale"),
        ("sd", {"controlnet_early_stop": 0.5}, "controlnet_early_stop"),
        ("sd", {"controlnet_preprocess": False}, "controlnet_preprocess"),
        ("sd", {"enable_safety": False}, "enable_safety"),
        ("sd", {"log_prompt": True}, "log_prompt"),
        ("sd", {"force_asset_download": True}, "force_asset_download"),
        ("sd", {"force_asset_gpu_copy": True}, "force_asset_gpu_copy"),
    ],
)
def test_a_field_without_effect_gets_a_notice(engine: str, body: dict[str, object], named: str) -> None:
    [notice] = notices.unused_fields(ENDPOINTS[engine], GenerateRequest.model_validate({"prompt": "x", **body}))

    assert notice.startswith(f"{named}: ")


def test_fields_that_octoais_first_client_always_sends_get_no_notice() -> None:
    always = {
        "prompt": "x",
        "strength": 0.8,
        "enable_safety": True,
        "style_preset": "base",
        "outpainting": False,
        "controlnet_preprocess": True,
        "force_asset_download": False,
    }

    assert notices.unused_fields(ENDPOINTS["sd"], GenerateRequest.model_validate(always)) == []
