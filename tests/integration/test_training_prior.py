"""The prior of a tune: the base's own output, images of the class, the account's own, or none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.engine import recipe
from services.trainer.engine.base import load_base
from services.trainer.engine.cache import encode_image
from services.trainer.engine.config import Job, TrainingImage
from services.trainer.engine.diffusion import Row, StepLoss
from services.trainer.engine.network import adapted_layers, add_adapters
from services.trainer.engine.text import Captions
from tests.integration.test_recipe import bases, make_job, one_thread, trained  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
Bases = dict[str, Path]


def step_loss(job: Job, rows_at_once: int = 8) -> tuple[StepLoss, list[Row], dict[str, torch.nn.Parameter]]:
    """Return a loss with random adapters, and a row for the prior for each image."""
    base = load_base(job, torch.device("cpu"))
    examples = [encode_image(base, job, image) for image in job.images]
    captions = Captions(base, {example.caption for example in examples} | {""}, fixed=True)
    _, weights = add_adapters(base, job.parameters, 1)
    for number, weight in enumerate(weights.values()):
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.3
    loss_of = StepLoss(base, captions, captions, adapted_layers(base.pipeline.unet), job.parameters, rows_at_once)
    return loss_of, [Row(example, 1.0, of_base=True) for example in examples], weights


def value(loss_of: StepLoss, rows: list[Row]) -> float:
    with torch.no_grad():
        return sum(part.item() for part in loss_of(rows, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_prior_asks_for_what_the_base_predicts(bases: Bases, tmp_path: Path, name: str) -> None:  # noqa: F811 - a fixture
    loss_of, rows, weights = step_loss(make_job(bases, tmp_path, name))

    assert value(loss_of, rows) > 1e-3
    for weight in weights.values():
        weight.data.zero_()
    # Without a change by the adapter, the base's output is reached exactly; the image's noise is not.
    assert value(loss_of, rows) == 0
    assert value(loss_of, [row._replace(of_base=False) for row in rows]) > 0.1


def test_the_prior_leaves_the_adapters_trainable(bases: Bases, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    loss_of, rows, weights = step_loss(make_job(bases, tmp_path))

    for part in loss_of(rows, torch.Generator().manual_seed(3)):
        part.backward()

    assert all(weight.requires_grad and weight.grad is not None for name, weight in weights.items() if "unet" in name)


def test_fewer_rows_at_once_give_the_same_gradients(bases: Bases, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    gradients: list[dict[str, torch.Tensor]] = []
    for rows_at_once in (8, 1):
        job = make_job(bases, tmp_path / str(rows_at_once))
        same_size = [image.model_copy(update={"file": job.images[0].file}) for image in job.images]
        loss_of, rows, weights = step_loss(job.model_copy(update={"images": same_size}), rows_at_once)
        mixed = [*rows, *(row._replace(of_base=False) for row in rows)]
        parts = [part.backward() for part in loss_of(mixed, torch.Generator().manual_seed(3))]
        assert len(parts) == (1 if rows_at_once == 8 else 6)
        gradients.append({name: weight.grad for name, weight in weights.items() if weight.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_images_of_the_account_take_the_place_of_generated_ones(
    bases: Bases,  # noqa: F811 - a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: Any) -> None:
        pytest.fail("class images were generated")

    monkeypatch.setattr(recipe, "generate_class_latents", refuse)

    def lora(folder: Path, caption: str) -> bytes:
        job = make_job(bases, folder, steps=2, prior="class_images")
        own = TrainingImage(file=job.images[0].file, caption=caption, regularization=True)
        return trained(job.model_copy(update={"images": [*job.images, own]}))

    assert lora(tmp_path / "one", "a photo of a thing") != lora(tmp_path / "two", "a photo of another thing")


def test_the_prior_is_in_the_files_metadata(bases: Bases, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    for prior in ("none", "base_output"):
        lora = trained(make_job(bases, tmp_path / prior, steps=1, prior=prior, clip_skip=2))
        assert f'"prior":"{prior}"'.encode() in lora
        assert b'"clip_skip":"2"' in lora
