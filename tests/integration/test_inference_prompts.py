"""Prompts as a worker encodes them: as diffusers does without weights, and as is written here by hand with them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from services.inference.worker.text import Prompts, encode
from shared.engines import Engine
from shared.errors import InvalidError
from shared.models import checkpoints
from tests.support.drawing_world import Studio, by_diffusers, differs, direct_pipelines, make_studio

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
BOTH = pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL], ids=["sd", "sdxl"])
ROOM = 30
"""Tokens of a chunk: the random checkpoints read 32, two of which mark start and end. Each letter and sign is a token."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from make_studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def direct(studio: Studio) -> dict[Engine, Any]:
    return direct_pipelines(studio.folders)


def encoded(studio: Studio, engine: Engine, prompt: str, vectors: dict[str, list[torch.Tensor]] | None = None) -> torch.Tensor:
    """Return the states of a prompt [chunks * tokens, width], as a worker hands them to the UNet."""
    components = checkpoints.load(studio.folders[engine], device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        read = encode(components, Prompts(prompt, ""), clip_skip=None, vectors=vectors or {}, zero_empty=False)
    return read["prompt_embeds"][0]


def by_hand(pipeline: Any, engine: Engine, chunks: list[tuple[str, list[float]]]) -> torch.Tensor:
    """Return the states of chunks, each a text and the weights of its first tokens, blended as ComfyUI blends them."""
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
    if engine is Engine.SDXL:
        encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    columns: list[torch.Tensor] = []
    for tokenizer, encoder in encoders:

        def states(text: str, tokenizer: Any = tokenizer, encoder: Any = encoder) -> torch.Tensor:
            ids = tokenizer(text, padding="max_length", max_length=ROOM + 2, return_tensors="pt").input_ids
            with torch.no_grad():
                out = encoder(ids, output_hidden_states=True)
            return out.last_hidden_state[0] if engine is Engine.SD15 else out.hidden_states[-2][0]

        nothing, rows = states(""), []
        for text, weights in chunks:
            row = states(text)
            for position, weight in enumerate(weights, 1):
                row[position] = nothing[position] + (row[position] - nothing[position]) * weight
            rows.append(row)
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=-1)


@BOTH
def test_weights_blend_each_token_with_the_empty_prompt(studio: Studio, direct: dict[Engine, Any], engine: Engine) -> None:
    ours = encoded(studio, engine, "a ((red:1.5) c:.8)at [x] (y:-1)")

    weights = [1.0] + [1.2] * 3 + [0.8] + [1.0] * 2 + [1 / 1.1] + [-1.0]
    assert torch.allclose(ours, by_hand(direct[engine], engine, [("a red c at x y", weights)]), atol=1e-5)


@BOTH
def test_break_begins_a_new_chunk_and_long_sections_take_several(
    studio: Studio, direct: dict[Engine, Any], engine: Engine
) -> None:
    ours = encoded(studio, engine, f"ab BREAK ({'c' * (ROOM + 2)}:2) BREAK d")

    expected = [("ab", []), ("c" * ROOM, [2.0] * ROOM), ("cc", [2.0] * 2), ("d", [])]
    read = by_hand(direct[engine], engine, [(text, weights) for text, weights in expected])
    # A chunk's end is no word's end: the letters of the cut word differ in that, so only the other chunks are compared.
    length = ROOM + 2
    for number in (0, 2, 3):
        assert torch.allclose(ours[number * length :][:length], read[number * length :][:length], atol=1e-5)
    assert ours.shape == read.shape


def test_the_vectors_of_a_word_stay_in_one_chunk(studio: Studio) -> None:
    vectors = {"sks": [torch.randn(4, 32, generator=torch.Generator().manual_seed(0))]}

    ours = encoded(studio, Engine.SD15, f"{'a ' * (ROOM - 2)} sks", vectors)
    apart = encoded(studio, Engine.SD15, f"{'a ' * (ROOM - 2)} BREAK sks", vectors)

    assert torch.equal(ours, apart)


def with_embedding(pipeline: Any, vectors: list[torch.Tensor], word: str, **options: Any) -> Image.Image:
    parts = [(pipeline.tokenizer, pipeline.text_encoder)]
    if len(vectors) > 1:
        parts.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    for (tokenizer, encoder), vector in zip(parts, vectors, strict=True):
        pipeline.load_textual_inversion({word: vector}, token=word, tokenizer=tokenizer, text_encoder=encoder)
    drawn = by_diffusers(pipeline, **options)
    for tokenizer, encoder in parts:
        pipeline.unload_textual_inversion(tokenizer=tokenizer, text_encoder=encoder)
    return drawn


@BOTH
def test_weight_one_changes_nothing_and_others_do(studio: Studio, engine: Engine) -> None:
    plain = studio.draw(engine)

    assert not differs(studio.draw(engine, prompt="a (red:1.0) cat"), plain)
    assert differs(studio.draw(engine, prompt="a (red:1.6) cat"), plain)
    # A word of weight 0 becomes empty text, but keeps its position.
    assert differs(studio.draw(engine, prompt="a (red:0) cat"), plain)


@BOTH
def test_the_end_of_a_long_prompt_counts(studio: Studio, engine: Engine) -> None:
    long = "a very long text " * 10

    assert differs(studio.draw(engine, prompt=long + "red"), studio.draw(engine, prompt=long + "blue"))


@BOTH
def test_clip_skip_uses_the_nth_last_layer_and_a_notice_tells_when_there_are_fewer(studio: Studio, engine: Engine) -> None:
    usual = {Engine.SD15: 1, Engine.SDXL: 2}[engine]
    drawn = {skip: studio.drawn(engine, clip_skip=skip) for skip in (1, 2, 12)}

    assert not differs(drawn[usual][0], studio.draw(engine))
    assert differs(drawn[1][0], drawn[2][0])
    assert not differs(drawn[12][0], drawn[2][0])
    assert drawn[2][1] == []
    assert drawn[12][1] == [f"clip_skip: 12 is more than the 2 layers of {engine.name}; 2 was used"]


@BOTH
def test_an_embedding_replaces_its_word_in_its_own_request_only(
    studio: Studio, direct: dict[Engine, Any], engine: Engine, tmp_path: Path
) -> None:
    names = ["emb_params"] if engine is Engine.SD15 else ["clip_l", "clip_g"]
    vectors = {name: torch.randn(2, 32, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate(names)}
    save_file(vectors, tmp_path / "e")
    prompt = "a <sks>, red"
    before = studio.draw(engine, prompt=prompt)

    drawn = studio.draw(engine, prompt=prompt, files={"embeddings": [("<sks>", tmp_path / "e")]})

    assert differs(drawn, before)
    assert not differs(drawn, with_embedding(direct[engine], list(vectors.values()), "<sks>", prompt=prompt))
    assert not differs(studio.draw(engine, prompt=prompt), before)
    # Another word with the same vectors gives the same image: no letter of the word is left.
    other = studio.draw(engine, prompt="a other, red", files={"embeddings": [("other", tmp_path / "e")]})
    assert not differs(other, drawn)
    save_file({"emb_params": torch.zeros(1, 7)}, tmp_path / "wrong")
    with pytest.raises(InvalidError, match="the vectors for '<sks>' are 7 wide; the checkpoint's text encoders need 32"):
        studio.draw(engine, prompt=prompt, files={"embeddings": [("<sks>", tmp_path / "wrong")]})


@BOTH
def test_prompts_are_encoded_as_diffusers_encodes_them(studio: Studio, direct: dict[Engine, Any], engine: Engine) -> None:
    negative = "a blue dog"
    assert not differs(studio.draw(engine, negative_prompt=negative), by_diffusers(direct[engine], negative_prompt=negative))
    # Without a negative prompt, diffusers uses zeros for SDXL and an empty text for SD 1.5.
    assert not differs(studio.draw(engine), by_diffusers(direct[engine]))


def test_the_second_encoder_of_sdxl_has_its_own_prompts(studio: Studio, direct: dict[Engine, Any]) -> None:
    ours = {"prompt_2": "at night", "negative_prompt_2": "by day"}

    drawn = studio.draw(Engine.SDXL, negative_prompt="x", **ours)

    assert not differs(drawn, by_diffusers(direct[Engine.SDXL], negative_prompt="x", **ours))
    assert differs(drawn, studio.draw(Engine.SDXL, negative_prompt="x"))
