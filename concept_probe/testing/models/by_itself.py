"""What a pipeline draws when it is called itself, from the noise that a subject begins with: the control of a family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import diffusers
import torch
from torch import Tensor

from concept_probe.families.diffusion.dit.packing import packed, unpacked
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

    def keep_after(_step: int, _timestep: Any, latents: Tensor) -> None:
        last[:] = [latents]

    asked = {
        "prompt": [q.prompt.text for q in queries],
        "num_inference_steps": sampling.steps,
        "guidance_rescale": sampling.guidance_rescale,
        "generator": sources,
        "latents": _PACKED.get(type(pipeline).__name__, _as_it_is)(noise),
        "output_type": "pt",
        "callback_on_step_end": keep,
        "callback": keep_after,
        **_size(pipeline, shape),
        **_length(pipeline, takes),
        **_picture(pipeline, takes, len(queries), shape),
        **_weight(pipeline, takes, sampling.guidance, len(queries)),
        **options,
    }
    own: Any = pipeline
    with torch.no_grad():
        pictures = own(**{name: value for name, value in asked.items() if name in takes}).images
    return _as_begun(last[0], shape), pictures.float()


def _as_it_is(noise: Tensor) -> Tensor:
    return noise


_PACKED: dict[str, Callable[[Tensor], Tensor]] = dict.fromkeys(
    ("ChromaPipeline", "FluxPipeline", "QwenImagePipeline"), packed
)
"""Class of a pipeline that takes its latents as patches, to how they are made."""


def _as_begun(latents: Tensor, shape: Sequence[int]) -> Tensor:
    """The latents of a call, which may have them in rows of places or of patches, in the shape (n, ...) of the noise."""
    if latents.ndim == 4:
        return latents
    if latents.shape[2] == shape[0]:
        return latents.mT.unflatten(2, tuple(shape[1:]))
    return unpacked(latents, *shape[1:])


def _weight(pipeline: Any, takes: Mapping[str, Any], guidance: float, count: int) -> dict[str, Any]:
    """How a call is told the weight of guidance: some have a name of their own for that of a second pass."""
    if "true_cfg_scale" not in takes or pipeline.transformer.config.guidance_embeds:
        return {"guidance_scale": guidance}
    return {"true_cfg_scale": guidance, "negative_prompt": [""] * count}


def _size(pipeline: Any, shape: Sequence[int]) -> dict[str, Any]:
    """Of the pictures that latents of `shape` are decoded to, which is not to be brought to a size of the call's own."""
    cell = pipeline.vae_scale_factor * (2 if type(pipeline).__name__.startswith("Flux2") else 1)
    return {"height": shape[1] * cell, "width": shape[2] * cell, "use_resolution_binning": False}


def _length(pipeline: Any, takes: Mapping[str, Any]) -> dict[str, int]:
    """How many tokens a T5 is given that stands beside a CLIP: what its tokenizer says that it takes, where that is less."""
    last = getattr(pipeline, "tokenizer_3", None) or getattr(pipeline, "tokenizer_2", None)
    if last is None or "max_sequence_length" not in takes:
        return {}
    return {"max_sequence_length": min(takes["max_sequence_length"].default, last.model_max_length)}


def _let_skip(pipeline: Any) -> None:
    """Let a pipeline find the norm where it looks for it when layers are skipped: newer encoders hold it one level up."""
    encoder = getattr(pipeline, "text_encoder", None)
    if encoder is not None and not hasattr(encoder, "text_model") and hasattr(encoder, "final_layer_norm"):
        object.__setattr__(encoder, "text_model", SimpleNamespace(final_layer_norm=encoder.final_layer_norm))


def _picture(pipeline: Any, takes: Mapping[str, Any], count: int, shape: Sequence[int]) -> dict[str, Any]:
    """For a call that starts from a picture: a mid-grey one, of which nothing is to be kept."""
    if "image" not in takes or "strength" not in takes:
        return {}
    height, width = (side * pipeline.vae_scale_factor for side in shape[1:])
    grey = torch.zeros(count, 3, height, width, device=pipeline.device)
    out: dict[str, Any] = {"image": grey, "strength": 1.0}
    if "mask_image" in takes:
        out["mask_image"] = torch.ones_like(grey[:, :1])
        with torch.no_grad():  # its mean, where the call would draw from the posterior
            mean = pipeline.vae.encode(grey.to(pipeline.dtype)).latent_dist.mode()
        out["masked_image_latents"] = mean * pipeline.vae.config.scaling_factor
    return out
