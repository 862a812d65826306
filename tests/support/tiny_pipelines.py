"""Random pipelines of the real classes, small enough that a step takes milliseconds."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.engines import Engine

NATIVE_SIZE_PX = 32
_WIDTH = 32
_TOKENS = 32


def _tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printable] + [chr(256 + extra) for extra in range(256 - len(printable))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=_TOKENS, pad_token=pad
    )


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_TOKENS,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unet(engine: Engine) -> UNet2DConditionModel:
    numbers = {Engine.SDXL: 6, Engine.SDXL_REFINER: 5}.get(engine)
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": _WIDTH + (numbers or 0) * 8,
    }
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    if engine is Engine.SDXL_REFINER:
        # Like the published refiner: attention in the middle block, but not on the last level.
        down, up = down[::-1], up[::-1]
    return UNet2DConditionModel(
        sample_size=NATIVE_SIZE_PX // 2,
        in_channels=4,
        out_channels=4,
        down_block_types=down,
        up_block_types=up,
        transformer_layers_per_block=2 if engine is Engine.SDXL_REFINER else 1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=2 * _WIDTH if engine is Engine.SDXL else _WIDTH,
        **(added if numbers else {}),
    )


def save_tiny_pipeline(engine: Engine, folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> None:
    """Write a random pipeline of this engine as a diffusers folder of JSON and safetensors."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=NATIVE_SIZE_PX,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    text_encoder = CLIPTextModel(_text_config(tokenizer))
    if engine is Engine.SD15:
        pipeline = StableDiffusionPipeline(
            vae, text_encoder, tokenizer, _unet(engine), scheduler, None, None, requires_safety_checker=False
        )
    elif engine is Engine.SDXL_REFINER:
        # Its only text encoder is SDXL's second.
        alone = CLIPTextModelWithProjection(_text_config(tokenizer))
        pipeline = StableDiffusionXLImg2ImgPipeline(
            vae,
            None,
            alone,
            None,
            _tokenizer(pad="!"),
            _unet(engine),
            scheduler,
            requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False,
        )
    else:
        projected = CLIPTextModelWithProjection(_text_config(tokenizer))
        # SDXL's second tokenizer pads with "!".
        second = _tokenizer(pad="!")
        pipeline = StableDiffusionXLPipeline(vae, text_encoder, projected, tokenizer, second, _unet(engine), scheduler)
    pipeline.save_pretrained(folder, safe_serialization=True)
