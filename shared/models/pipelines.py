"""Puts loaded components together as diffusers' own pipelines."""

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from shared.engines import Engine
from shared.models.checkpoints import Components

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


def build(components: Components, scheduler: SchedulerMixin) -> Pipeline:
    """Return the pipeline of the components' engine, without a safety checker or watermark, and silent."""
    if components.info.engine is Engine.SD15:
        [encoder], [tokenizer] = components.text_encoders, components.tokenizers
        pipeline: Pipeline = StableDiffusionPipeline(
            components.vae, encoder, tokenizer, components.unet, scheduler, None, None, requires_safety_checker=False
        )
    else:
        (first, second), (tokenizer, tokenizer_2) = components.text_encoders, components.tokenizers
        pipeline = StableDiffusionXLPipeline(
            components.vae,
            first,
            second,
            tokenizer,
            tokenizer_2,
            components.unet,
            scheduler,
            force_zeros_for_empty_prompt=components.zeros_for_empty_prompt,
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
