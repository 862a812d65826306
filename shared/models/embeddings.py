"""Textual inversions (Gal et al. 2022): words of their own for the length of a request."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from shared.embedding_files import FIRST, SECOND, read_embedding
from shared.errors import InvalidError
from shared.models.pipelines import Pipeline


@contextmanager
def textual_inversions(pipeline: Pipeline, files: Mapping[str, Path]) -> Iterator[None]:
    """Have the pipeline know these words (trigger word to file), and forget them again on leaving, whatever happened.

    Not for two threads on one pipeline at once: text encoders and tokenizers are changed in place. Raises InvalidError for a
    file that is no textual inversion or is for other text encoders, and for a word that the tokenizer knows already.
    """
    encoders = [(pipeline.tokenizer, pipeline.text_encoder, "tokenizer")]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2, "tokenizer_2"))
    if not files:
        yield
        return
    loaded = {word: _read(word, path, [encoder for _, encoder, _ in encoders]) for word, path in files.items()}
    with ExitStack() as stack:
        for number, (tokenizer, encoder, name) in enumerate(encoders):
            stack.callback(setattr, pipeline, name, tokenizer)
            stack.callback(_restore, encoder, encoder.get_input_embeddings().weight.data)
            learning = copy.deepcopy(tokenizer)
            setattr(pipeline, name, learning)
            for word, vectors in loaded.items():
                if word in learning.get_vocab():
                    msg = f"textual_inversions: {word!r} is a word that the model knows already; choose another trigger word"
                    raise InvalidError(msg, loc=("body", "textual_inversions", word))
                pipeline.load_textual_inversion(
                    {word: vectors[number]}, token=word, tokenizer=learning, text_encoder=encoder, local_files_only=True
                )
        yield


def _read(word: str, path: Path, encoders: list[Any]) -> list[Any]:
    """Return the vectors for each text encoder."""
    info = read_embedding(path)
    widths = [encoder.config.hidden_size for encoder in encoders]
    if info.widths != widths:
        msg = (
            f"textual_inversions: the vectors for {word!r} are {' and '.join(map(str, info.widths))} wide; the checkpoint's text "
            f"encoders need {' and '.join(map(str, widths))}"
        )
        raise InvalidError(msg, loc=("body", "textual_inversions", word))
    tensors = load_file(path)
    return [tensors[FIRST], tensors[SECOND]] if len(widths) > 1 else list(tensors.values())


def _restore(encoder: Any, weights: Any) -> None:
    """Put the table of words back as it was: growing it has made a new one."""
    embeddings = encoder.get_input_embeddings()
    embeddings.weight.data = weights
    embeddings.num_embeddings = encoder.config.vocab_size = weights.shape[0]
