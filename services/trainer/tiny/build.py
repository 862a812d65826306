"""Builds the small checkpoint from nothing: draws the pictures, trains the parts, writes the folder."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from services.trainer.tiny import architecture, export, pictures, training
from services.trainer.tiny.tokenizer import build as build_tokenizer
from services.trainer.tiny.training import Report

PICTURES = 30_000
VAE_STEPS = 1_600
TEXT_STEPS = 800
UNET_STEPS = 4_000


def build_sd15(vocabulary: Path, scratch: Path, target: Path, report: Report) -> None:
    """Build tiny-sd15 into `target`, about an hour on two cores.

    `vocabulary` is CLIP's `bpe_simple_vocab_16e6.txt.gz`. What is finished is kept in `scratch`, and a build that was cut
    short goes on from there.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    if not (scratch / "set" / "captions.txt").exists():
        report(f"drawing {PICTURES} pictures")
        pictures.build(scratch / "set", PICTURES)
    pixels, captions, labels = training.load_set(scratch / "set")
    tokenizer = build_tokenizer(vocabulary)
    vae, text_encoder = architecture.autoencoder(), architecture.text_encoder(tokenizer)
    if not (scratch / "vae.safetensors").exists():
        vae = training.train_autoencoder(pixels, steps=VAE_STEPS, report=report)
        save_file(vae.state_dict(), scratch / "vae.safetensors")
    vae.load_state_dict(load_file(scratch / "vae.safetensors"))
    if not (scratch / "text.safetensors").exists():
        text_encoder = training.train_text_encoder(tokenizer, captions, labels, steps=TEXT_STEPS, report=report)
        save_file(text_encoder.state_dict(), scratch / "text.safetensors")
    text_encoder.load_state_dict(load_file(scratch / "text.safetensors"))
    latents = training.encode(vae.eval(), pixels)
    unet = training.train_unet(
        text_encoder.eval(),
        tokenizer,
        captions,
        latents,
        steps=UNET_STEPS,
        state=scratch / "unet.safetensors",
        report=report,
    )
    export.export_sd15(target, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet)
    report(f"written to {target}")
