"""What a pipeline draws when it is called itself, from the noise that a subject begins with: the control of a family."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import diffusers
import torch
from torch import Tensor

from concept_probe.types import Query, Sampling


def drawn_by_itself(
    pipeline: Any, queries: Sequence[Query], shape: Sequence[int], sampling: Sampling, **options: Any
) -> tuple[Tensor, Tensor]:
    """Latents (n, ...) and pictures (n, 3, h, w) in 0..1 of queries, by the pipeline's own `__call__`.

    `shape` is that of one picture's noise; `options` are told to the call besides, those that it takes.
    """
    if isinstance(pipeline, diffusers.StableDiffusionImg2ImgPipeline):  # it takes no noise to begin with
        pipeline = cast(Any, diffusers.StableDiffusionPipeline)(**pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    _let_skip(pipeline)
    takes = inspect.signature(pipeline.__call__).parameters
    sources = [torch.Generator("cpu").manual_seed(q.seed) for q in queries]
    noise = torch.stack([torch.randn(tuple(shape), generator=source) for source in sources])
    noise = noise.to(pipeline.device, pipeline.dtype)
    if isinstance(pipeline, diffusers.StableDiffusionXLImg2ImgPipeline):  # the one that takes noise as it will be
        pipeline.scheduler.set_timesteps(sampling.steps)
        noise = noise * pipeline.scheduler.init_noise_sigma
    last: list[Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        last[:] = [tensors["latents"]]
        return tensors

    asked = {
        "prompt": [q.prompt.text for q in queries],
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "guidance_rescale": sampling.guidance_rescale,
        "generator": sources,
        "latents": noise,
        "output_type": "pt",
        "callback_on_step_end": keep,
        **_size(pipeline, shape),
        **_picture(pipeline, takes, len(queries)),
        **_of_patches(pipeline, noise, sampling),
        **options,
    }
    own: Any = pipeline
    with torch.no_grad():
        pictures = own(**{name: value for name, value in asked.items() if name in takes}).images
    if last[0].ndim == 3:
        last[0] = own._unpack_latents(last[0], *_size(pipeline, shape).values(), own.vae_scale_factor)
    return last[0], pictures.float()


def _size(pipeline: Any, shape: Sequence[int]) -> dict[str, int]:
    """Of the pictures that latents of `shape` are decoded to."""
    return {"height": shape[1] * pipeline.vae_scale_factor, "width": shape[2] * pipeline.vae_scale_factor}


def _of_patches(pipeline: Any, noise: Tensor, sampling: Sampling) -> dict[str, Any]:
    """For a call that takes latents as rows of patches, and guides by a second pass only where it is told so."""
    if not hasattr(pipeline, "_pack_latents"):
        return {}
    out: dict[str, Any] = {"latents": pipeline._pack_latents(noise, *noise.shape)}
    if not pipeline.transformer.config.guidance_embeds:
        out |= {"true_cfg_scale": sampling.guidance, "negative_prompt": [""] * len(noise)}
    return out


def _let_skip(pipeline: Any) -> None:
    """Let a pipeline find the norm where it looks for it when layers are skipped: newer encoders hold it one level up."""
    encoder = getattr(pipeline, "text_encoder", None)
    if encoder is not None and not hasattr(encoder, "text_model") and hasattr(encoder, "final_layer_norm"):
        object.__setattr__(encoder, "text_model", SimpleNamespace(final_layer_norm=encoder.final_layer_norm))


def _picture(pipeline: Any, takes: Mapping[str, Any], count: int) -> dict[str, Any]:
    """For a call that starts from a picture: a mid-grey one, of which nothing is to be kept."""
    if "image" not in takes:
        return {}
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    grey = torch.zeros(count, 3, size, size, device=pipeline.device)
    out: dict[str, Any] = {"image": grey, "strength": 1.0}
    if "mask_image" in takes:
        out["mask_image"] = torch.ones_like(grey[:, :1])
        with torch.no_grad():  # its mean, where the call would draw from the posterior
            mean = pipeline.vae.encode(grey.to(pipeline.dtype)).latent_dist.mode()
        out["masked_image_latents"] = mean * pipeline.vae.config.scaling_factor
    return out
