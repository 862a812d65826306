"""The small models: the classes of diffusers and transformers at 64 px, with about 8 million parameters in all."""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SIDE_PX = 64
LATENT_SIDE = 16
MAX_TOKENS = 32
TEXT_WIDTH = 128
SECOND_TEXT_WIDTH = 48
"""Width of SDXL's second encoder. It is small so that the checkpoint stays under 16 MB."""
_TIME_EMBED = 32
"""Width of the embedding of each of SDXL's six numbers (original size, crop, target size)."""
_TIMES = 6


def autoencoder() -> AutoencoderKL:
    """Return a VAE with factor 4: it encodes 3 x 64 x 64 in [-1, 1] as 4 x 16 x 16."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=SIDE_PX,
        mid_block_add_attention=False,
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return the text encoder of SD 1.5, which is also SDXL's first one: three layers, 128 wide."""
    return CLIPTextModel(_text_config(tokenizer, TEXT_WIDTH, layers=3))


def second_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Return SDXL's second text encoder, with a projection: two layers, 48 wide."""
    return CLIPTextModelWithProjection(_text_config(tokenizer, SECOND_TEXT_WIDTH, layers=2))


def _text_config(tokenizer: CLIPTokenizer, width: int, *, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 4,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def unet(*, sdxl: bool) -> UNet2DConditionModel:
    """Return the denoiser. It has attention at 8 x 8 and 4 x 4 only, which is cheap and enough.

    SDXL's denoiser gets the output of both text encoders, concatenated, and the pooled text and six sizes through its added
    embedding.
    """
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_EMBED,
        "projection_class_embeddings_input_dim": SECOND_TEXT_WIDTH + _TIMES * _TIME_EMBED,
    }
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH + (SECOND_TEXT_WIDTH if sdxl else 0),
        attention_head_dim=8,
        norm_num_groups=32,
        **(added if sdxl else {}),
    )


def scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule with v-prediction (Salimans & Ho 2022), which small models learn better."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
