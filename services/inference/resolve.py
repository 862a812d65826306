"""Resolves a request to its inputs: assets by name or id, size, seeds and style. Refuses what does not fit together."""

import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference import repository, sizes, styles, syntax
from services.inference.endpoints import Endpoint
from services.inference.images import StagedImage
from services.inference.inputs import Control, EmbeddingRef, ImageRef, Inputs, LoraRef, ModelRef, Refine, Start
from services.inference.notices import unused_fields
from services.inference.schemas import MAX_SEED, GenerateRequest, Sampler
from shared.database.tables import Asset
from shared.engines import Engine
from shared.errors import InvalidError, NotSupportedError

_ASPECTS_ALIKE = 0.02
_REFINERS = (Engine.SDXL_REFINER, Engine.SDXL)
"""An SDXL checkpoint can refine as well."""


@dataclass(frozen=True)
class Resolver:
    """Resolves requests of one account in one transaction."""

    session: AsyncSession
    account_id: UUID
    refiner_checkpoint: str

    async def inputs(self, endpoint: Endpoint, body: GenerateRequest, staged: dict[str, StagedImage]) -> Inputs:
        """Return the inputs of the request. Raises InvalidError, and NotSupportedError for what is not offered."""
        notices = unused_fields(endpoint, body)
        base = await self._base(endpoint, body)
        if alias := base.data.get("alias_of"):
            notices.append(f"octoai:{base.name} stands for octoai:{alias}")
        images = {field: image.ref for field, image in staged.items()}
        start = _start(body, images)
        width, height = sizes.choose(
            endpoint.family,
            (body.width, body.height) if body.width is not None and body.height is not None else None,
            (start.image.width, start.image.height) if start else None,
        )
        is_sdxl = endpoint.family is Engine.SDXL
        prompt, negative = _prompt(body, "prompt", notices), _prompt(body, "negative_prompt", notices)
        if is_sdxl:
            prompt, negative = styles.apply(body.style_preset, prompt, negative)
        return Inputs(
            engine=endpoint.family,
            base=await self._ref(base),
            loras=[
                LoraRef(weight=weight, **await self._adapter("loras", "lora", key, base))
                for key, weight in (body.loras or {}).items()
            ],
            embeddings=[
                EmbeddingRef(trigger=trigger, **await self._adapter("textual_inversions", "textual_inversion", key, base))
                for key, trigger in (body.textual_inversions or {}).items()
            ],
            vae=ModelRef(**await self._adapter("vae", "vae", body.vae, base)) if body.vae else None,
            prompt=prompt,
            negative_prompt=negative,
            prompt_2=_prompt(body, "prompt_2", notices) or None if is_sdxl else None,
            negative_prompt_2=_prompt(body, "negative_prompt_2", notices) or None if is_sdxl else None,
            sampler=body.sampler or Sampler.DDIM,
            width=width,
            height=height,
            cfg_scale=12.0 if body.cfg_scale is None else body.cfg_scale,
            steps=body.steps or 30,
            seeds=choose_seeds(body.seed, body.num_images or 1),
            image_encoding=body.image_encoding or "jpeg",
            clip_skip=body.clip_skip,
            start=start,
            control=await self._control(endpoint, body, images),
            refine=await self._refine(endpoint, body, notices),
            notices=notices,
        )

    async def _base(self, endpoint: Endpoint, body: GenerateRequest) -> Asset:
        key = body.checkpoint or endpoint.default_checkpoint
        base = await repository.find_asset(self.session, self.account_id, "checkpoint", key)
        if base is None and endpoint.checkpoint_engine is Engine.SSD and not body.checkpoint:
            msg = f"checkpoint: {key} is not registered on this server; name an SSD checkpoint of your own in `checkpoint`"
            raise NotSupportedError(msg)
        if base is None:
            raise _unknown("checkpoint", "checkpoint", key)
        if base.data.get("engine") != endpoint.checkpoint_engine:
            msg = (
                f"checkpoint: {base.name} is for {base.data.get('engine')}, but this endpoint is for "
                f"{endpoint.checkpoint_engine}; choose another checkpoint or endpoint"
            )
            raise InvalidError(msg, loc=("body", "checkpoint"))
        return base

    async def _adapter(self, field: str, asset_type: str, key: str, base: Asset) -> dict[str, Any]:
        """Return the fields of a reference to an asset that fits the checkpoint in engine and, if known, in shape."""
        asset = await repository.find_asset(self.session, self.account_id, asset_type, key)
        if asset is None:
            raise _unknown(field, asset_type, key)
        loc = ("body", field) if field == "vae" else ("body", field, key)
        if (made_for := asset.data.get("engine")) != base.data.get("engine"):
            msg = (
                f"{field}: {key!r} is for {made_for} and does not fit {base.name!r}, which is {base.data.get('engine')}; "
                f"choose another {asset_type} or checkpoint"
            )
            raise InvalidError(msg, loc=loc)
        shape, wanted = asset.data.get("shape_class"), base.data.get("shape_class")
        if shape is not None and shape != wanted:
            msg = (
                f"{field}: {key!r} was trained on {shape} and does not fit the checkpoint {base.name!r}, which is {wanted}; "
                f"choose another {asset_type} or checkpoint"
            )
            raise InvalidError(msg, loc=loc)
        return (await self._ref(asset)).model_dump()

    async def _control(self, endpoint: Endpoint, body: GenerateRequest, images: dict[str, ImageRef]) -> Control | None:
        if endpoint.controlnet_engine is None:
            for field in ("controlnet", "controlnet_image"):
                if getattr(body, field):
                    msg = f"{field}: this endpoint has no ControlNet; use /generate/controlnet-sd15 or /generate/controlnet-sdxl"
                    raise InvalidError(msg, loc=("body", field))
            return None
        if "controlnet_image" not in images:
            msg = "controlnet_image: missing; send the image that the ControlNet follows"
            raise InvalidError(msg, loc=("body", "controlnet_image"), kind="missing")
        key = body.controlnet or endpoint.default_controlnet
        asset = await repository.find_asset(self.session, self.account_id, "checkpoint", key)
        if asset is None:
            raise _unknown("controlnet", "checkpoint", key)
        if asset.data.get("engine") != endpoint.controlnet_engine:
            msg = (
                f"controlnet: {key!r} is for {asset.data.get('engine')}, but this endpoint is for {endpoint.controlnet_engine}; "
                "choose another ControlNet or endpoint"
            )
            raise InvalidError(msg, loc=("body", "controlnet"))
        preprocess = body.controlnet_preprocess is not False
        if preprocess and "canny" not in f"{asset.name} {asset.data.get('alias_of')}".lower():
            msg = (
                f"controlnet_preprocess: {key!r} has no canny in its name, and images are prepared for canny ControlNets only; "
                "send a prepared controlnet_image and controlnet_preprocess: false"
            )
            raise InvalidError(msg, loc=("body", "controlnet_preprocess"))
        return Control(
            model=await self._ref(asset),
            image=images["controlnet_image"],
            preprocess="canny" if preprocess else None,
            scale=1.0 if body.controlnet_conditioning_scale is None else body.controlnet_conditioning_scale,
            early_stop=body.controlnet_early_stop,
        )

    async def _refine(self, endpoint: Endpoint, body: GenerateRequest, notices: list[str]) -> Refine | None:
        if endpoint.family is not Engine.SDXL or body.use_refiner is False:
            return None
        asset = None
        if self.refiner_checkpoint:
            asset = await repository.find_asset(self.session, self.account_id, "checkpoint", self.refiner_checkpoint)
        if asset is None or asset.data.get("engine") not in _REFINERS:
            asked = [name for name in ("use_refiner", "high_noise_frac") if name in body.model_fields_set]
            if asked:
                notices.append(f"{', '.join(asked)}: ignored, because this server has no SDXL refiner; the base draws alone")
            return None
        return Refine(model=await self._ref(asset), high_noise_frac=0.8 if body.high_noise_frac is None else body.high_noise_frac)

    async def _ref(self, asset: Asset) -> ModelRef:
        public = asset.account_id != self.account_id and await repository.is_platforms(self.session, asset.account_id)
        name = f"octoai:{asset.name}" if public else asset.name
        return ModelRef(name=name, asset_id=asset.id, blob_key=asset.blob_key or "", sha256=asset.sha256 or "")


def choose_seeds(asked: int | list[int | None] | None, count: int) -> list[int]:
    """Return a seed for each image: s gives s, s+1, ... modulo 2^32; seeds missing from a list are random."""
    if isinstance(asked, int):
        return [(asked + number) % (MAX_SEED + 1) for number in range(count)]
    given = (asked or []) + [None] * count
    return [secrets.randbelow(MAX_SEED + 1) if seed is None else seed for seed in given[:count]]


def _prompt(body: GenerateRequest, field: str, notices: list[str]) -> str:
    """Return one of the request's prompts as it is drawn, and add the notices about it."""
    prompt, found = syntax.cleaned(field, getattr(body, field) or "")
    notices += found
    return prompt


def _start(body: GenerateRequest, images: dict[str, ImageRef]) -> Start | None:
    image, mask = images.get("init_image"), images.get("mask_image")
    if image is None:
        return None
    if mask is not None and abs(mask.width * image.height / (mask.height * image.width) - 1) > _ASPECTS_ALIKE:
        msg = (
            f"mask_image: {mask.width}x{mask.height} px does not have the aspect of init_image, {image.width}x{image.height} px; "
            "send both in the same aspect"
        )
        raise InvalidError(msg, loc=("body", "mask_image"))
    return Start(
        image=image,
        strength=0.8 if body.strength is None else body.strength,
        mask=mask,
        full_res=bool(body.inpaint_full_res),
        full_res_padding=32 if body.inpaint_full_res_padding is None else body.inpaint_full_res_padding,
        outpainting=bool(body.outpainting),
    )


def _unknown(field: str, asset_type: str, key: str) -> InvalidError:
    msg = f"{field}: there is no ready {asset_type} named {key!r}; name one of your library, or a public one as octoai:NAME"
    loc = ("body", field, key) if field in {"loras", "textual_inversions"} else ("body", field)
    return InvalidError(msg, loc=loc)
