"""Trains the text encoders, and turns captions into the denoiser's conditioning."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from deploy.tiny.architecture import MAX_TOKENS
from deploy.tiny.images import CLASSES
from deploy.tiny.training import REPORT_EVERY, Report, descend, learning_rate

_SIZES_PX = (40, 104)
"""Range of the random sizes that SDXL is trained with. They are independent of the image, so the model learns to ignore them."""

BATCH = 128


def tokenize(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Return the token ids (n, 32) of captions."""
    made = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return made.input_ids


def train(model: Any, ids: torch.Tensor, labels: torch.Tensor, *, steps: int, report: Report) -> None:
    """Train a text encoder alone, to predict from a caption's token ids (n, 32) what its image shows: labels (n, 4).

    Text encoder and UNet do not learn when they are trained together from random weights.
    """
    heads = torch.nn.ModuleList(torch.nn.Linear(model.config.hidden_size, classes) for classes in CLASSES)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        rows = torch.randint(0, len(ids), (BATCH,), generator=generator)
        output = model(ids[rows])
        pooled = output.text_embeds if "text_embeds" in output else output.pooler_output
        losses = [functional.cross_entropy(head(pooled), labels[rows, number]) for number, head in enumerate(heads)]
        loss = torch.stack(losses).sum()
        descend(optimizer, parameters, loss, rate=learning_rate(step, steps, 1e-3))
        if step % REPORT_EVERY == 0:
            report(f"text encoder {step}/{steps}: loss {loss.item():.4f}")


class Conditioning:
    """Encodes captions for a denoiser, with the text encoders of its engine: one for SD 1.5, two for SDXL."""

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any]) -> None:
        self._encoders, self._tokenizers = encoders, tokenizers
        self.sdxl = len(encoders) > 1

    def tokenize(self, captions: list[str]) -> torch.Tensor:
        """Return the token ids (n, encoders, 32) of captions."""
        return torch.stack([tokenize(tokenizer, captions) for tokenizer in self._tokenizers], dim=1)

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Return the UNet's arguments for token ids (n, encoders, 32).

        SD 1.5 gets the last layer of its encoder. SDXL gets the last layer but one of both encoders, concatenated, the pooled
        output of the second, and six sizes.
        """
        outputs = [encoder(ids[:, number], output_hidden_states=True) for number, encoder in enumerate(self._encoders)]
        if not self.sdxl:
            return {"encoder_hidden_states": outputs[0].last_hidden_state}
        sizes = torch.randint(*_SIZES_PX, (len(ids), 6), generator=generator).float()
        sizes[:, 2:4] = 0
        return {
            "encoder_hidden_states": torch.cat([output.hidden_states[-2] for output in outputs], dim=-1),
            "added_cond_kwargs": {"text_embeds": outputs[-1].text_embeds, "time_ids": sizes},
        }
