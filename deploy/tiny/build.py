"""Builds the small checkpoints from nothing: draws the images, trains the parts, writes the folders."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from deploy.tiny import architecture, autoencoder, controlnet, denoiser, export, images, score, text, training
from deploy.tiny.training import Report

VAE_STEPS, DECODER_STEPS, TEXT_STEPS, SD15_STEPS, SDXL_STEPS = 4_000, 800, 800, 16_000, 2_000
CLASSIFIER_STEPS = 2_500
_SD15_RATE, _SDXL_RATE = 1e-3, 6e-4
_SDXL_PAD = "!"
"""SDXL's second tokenizer pads with this token, its first one with the end-of-text token."""


class Build:
    """Trains the parts of both checkpoints, each when it is first needed, and writes the checkpoints.

    `tokenizer` is a tokenizer's folder: the shipped one has the bytes and the first 3,000 merges of CLIP's own vocabulary
    (`bpe_simple_vocab_16e6`, OpenAI, MIT licence). Finished parts are kept in `scratch`, where an interrupted build continues.
    """

    def __init__(self, tokenizer: Path, scratch: Path, report: Report) -> None:
        self._scratch, self._report = scratch, report
        self._tokenizers = (
            CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True),
            CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True, pad_token=_SDXL_PAD),
        )
        scratch.mkdir(parents=True, exist_ok=True)
        if not (scratch / "set" / "captions.txt").exists():
            report(f"drawing {images.COUNT} images")
            images.build(scratch / "set", images.COUNT)
        self._pixels, self._captions, self._labels = training.load_set(scratch / "set")

    def sd15(self, target: Path) -> None:
        """Write tiny-sd15. It takes about two hours and a half on two cores."""
        unet, encoder, tokenizer = self._sd15_unet, self._encoder, self._tokenizers[0]
        export.export_sd15(target, vae=self._vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet)
        self._report(f"written to {target}")

    def sdxl(self, target: Path) -> None:
        """Write tiny-sdxl: tiny-sd15's VAE and encoder, a second encoder, and its UNet, widened and trained further."""
        encoders = self._encoder, self._second_encoder
        unet = denoiser.train(
            text.Conditioning(encoders, self._tokenizers),
            self._captions,
            self._encoded[0],
            steps=SDXL_STEPS,
            peak=_SDXL_RATE,
            state=self._scratch / "unet_sdxl.safetensors",
            report=self._report,
            start=self._sd15_unet.state_dict(),
        )
        export.export_sdxl(target, vae=self._vae, text_encoders=encoders, tokenizers=self._tokenizers, unet=unet)
        self._report(f"written to {target}")

    def scores(self, folder: Path) -> None:
        """Score the checkpoints in a folder. Trains the classifier first if the folder has none."""
        if not (folder / score.CLASSIFIER_FILE).exists():
            model = score.train(self._pixels, self._labels, steps=CLASSIFIER_STEPS, report=self._report)
            score.save(model, folder / score.CLASSIFIER_FILE)
        score.write(folder)
        self._report(f"written to {folder / score.SCORES_FILE}")

    def canny(self, base: Path, target: Path) -> None:
        """Write a canny ControlNet for the checkpoint in the folder `base`. It takes about ten minutes."""
        state = self._scratch / f"{target.name}.safetensors"
        controlnet.train(base, self._pixels, self._captions, target, state=state, report=self._report)

    @cached_property
    def _sd15_unet(self) -> Any:
        return denoiser.train(
            text.Conditioning([self._encoder], self._tokenizers[:1]),
            self._captions,
            self._encoded[0],
            steps=SD15_STEPS,
            peak=_SD15_RATE,
            state=self._scratch / "unet.safetensors",
            report=self._report,
        )

    @cached_property
    def _vae(self) -> Any:
        """The autoencoder with a refined decoder. Its encoder, and so the latents, do not change."""

        def refine(model: Any) -> None:
            autoencoder.refine_decoder(model, self._pixels, steps=DECODER_STEPS, report=self._report)

        model = architecture.autoencoder()
        model.load_state_dict(self._unrefined.state_dict())
        model.register_to_config(scaling_factor=self._encoded[1])
        return self._trained("decoder", model, refine)

    @cached_property
    def _unrefined(self) -> Any:
        def train(model: Any) -> None:
            autoencoder.train(model, self._pixels, steps=VAE_STEPS, report=self._report)

        return self._trained("vae", architecture.autoencoder(), train)

    @cached_property
    def _encoded(self) -> tuple[torch.Tensor, float]:
        """The latents of the images, and their scaling factor."""
        return autoencoder.encode(self._unrefined, self._pixels)

    @cached_property
    def _encoder(self) -> Any:
        return self._trained("text", architecture.text_encoder(self._tokenizers[0]), self._text_training(0))

    @cached_property
    def _second_encoder(self) -> Any:
        return self._trained("text_2", architecture.second_text_encoder(self._tokenizers[1]), self._text_training(1))

    def _text_training(self, number: int) -> Callable[[Any], None]:
        ids = text.tokenize(self._tokenizers[number], self._captions)
        return lambda model: text.train(model, ids, self._labels, steps=TEXT_STEPS, report=self._report)

    def _trained(self, part: str, model: Any, train: Callable[[Any], None]) -> Any:
        """Return a trained part: trained now, or loaded if an earlier build trained it."""
        kept = self._scratch / f"{part}.safetensors"
        if not kept.exists():
            train(model)
            draft = kept.with_suffix(".draft")
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, draft)
            draft.replace(kept)
        model.load_state_dict(load_file(kept))
        return model.eval()
