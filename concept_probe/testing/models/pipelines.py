"""Tiny random pipelines of every kind of Stable Diffusion that people use, and how each is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl, tiny_text_config, tiny_unet, tokenizer
from concept_probe.types import Sampling

NOISY: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@dataclass(frozen=True)
class TinyPipeline:
    """A kind of pipeline, and what it is asked with."""

    make: Callable[[], Any]
    sampling: Sampling = Sampling(steps=3, guidance=3.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `adopt` and `load` are told besides."""


def _of(kind: str, base: Callable[..., Any], **other: Any) -> Any:
    """The pipeline class `kind` around the parts of a tiny one, `other` in their place."""
    parts = {**base().pipeline.components, **other}
    safe = {} if "XL" in kind else {"requires_safety_checker": False}
    return getattr(diffusers, kind)(**parts, **safe, **({"add_watermarker": False} if "XL" in kind else {}))


def _seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return made


def _second() -> Any:
    """Stable Diffusion 2: an encoder of OpenCLIP that pads with "!", a velocity, and noise alone at the last timestep."""
    words = tokenizer(pad="!")
    return _of(
        "StableDiffusionPipeline",
        tiny_sd,
        text_encoder=CLIPTextModel(tiny_text_config(16, "gelu", words, layers=3)),
        tokenizer=words,
        unet=tiny_unet(16, use_linear_projection=True),
        scheduler=diffusers.DDIMScheduler(
            **NOISY,
            clip_sample=False,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
    )


def _lcm(kind: str) -> Any:
    return _of(kind, tiny_sd, unet=tiny_unet(16, time_cond_proj_dim=8), scheduler=diffusers.LCMScheduler(**NOISY))


def _turbo() -> Any:
    ancestral = diffusers.EulerAncestralDiscreteScheduler(**NOISY, timestep_spacing="trailing")
    return _of("StableDiffusionXLPipeline", tiny_sdxl, scheduler=ancestral)


def _deep_xl() -> Any:
    """With text encoders of three layers."""
    words = tokenizer(), tokenizer(pad="!")
    first = CLIPTextModel(tiny_text_config(16, "quick_gelu", words[0], layers=3))
    second = CLIPTextModelWithProjection(tiny_text_config(24, "gelu", words[1], layers=3))
    return _of("StableDiffusionXLPipeline", tiny_sdxl, text_encoder=first, text_encoder_2=second)


def _refiner(kind: str = "StableDiffusionXLImg2ImgPipeline") -> Any:
    words = tokenizer(pad="!")
    reads = tiny_unet(
        24, addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=5 * 8 + 24
    )
    second = CLIPTextModelWithProjection(tiny_text_config(24, "gelu", words))
    parts: dict[str, Any] = {"text_encoder": None, "tokenizer": None, "text_encoder_2": second, "tokenizer_2": words}
    pipeline = _of(kind, tiny_sdxl, unet=reads, **parts)
    pipeline.register_to_config(requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    return pipeline


def _painting_xl() -> Any:
    reads = tiny_unet(
        40,
        in_channels=9,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    return _of("StableDiffusionXLInpaintPipeline", tiny_sdxl, unet=reads)


def _adapted() -> Any:
    """With an adapter named `style` on the U-Net and on every matrix of the text encoder, as loaded ones are."""
    from peft import LoraConfig, inject_adapter_in_model

    pipeline = tiny_sd().pipeline
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=attention, init_lora_weights=False), "style")
    words = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    inject_adapter_in_model(
        LoraConfig(r=2, target_modules=words, init_lora_weights=False), pipeline.text_encoder, "style"
    )
    return pipeline


def _fused() -> Any:
    """With the same adapter put into the weights."""
    pipeline = _adapted()
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline


def _inverted() -> Any:
    """With a word of two vectors."""
    pipeline = tiny_sd().pipeline
    pipeline.load_textual_inversion(torch.randn(2, 16), token="cat")
    return pipeline


PIPELINES: dict[str, TinyPipeline] = {
    "SD": TinyPipeline(lambda: tiny_sd().pipeline),
    "SDXL": TinyPipeline(lambda: tiny_sdxl().pipeline),
    "SD 2": TinyPipeline(_seeded(_second), Sampling(steps=3, guidance=3.0, guidance_rescale=0.7)),
    "SD img2img": TinyPipeline(lambda: _of("StableDiffusionImg2ImgPipeline", tiny_sd)),
    "SD inpaint, 4 channels": TinyPipeline(lambda: _of("StableDiffusionInpaintPipeline", tiny_sd)),
    "SD inpaint, 9 channels": TinyPipeline(
        _seeded(lambda: _of("StableDiffusionInpaintPipeline", tiny_sd, unet=tiny_unet(16, in_channels=9)))
    ),
    "SDXL img2img": TinyPipeline(lambda: _of("StableDiffusionXLImg2ImgPipeline", tiny_sdxl)),
    "SDXL refiner": TinyPipeline(_seeded(_refiner)),
    "SDXL inpaint, 4 channels": TinyPipeline(lambda: _of("StableDiffusionXLInpaintPipeline", tiny_sdxl)),
    "SDXL inpaint, 9 channels": TinyPipeline(_seeded(_painting_xl)),
    "SDXL turbo": TinyPipeline(_turbo, Sampling(steps=2, guidance=0.0)),
    "SD LCM": TinyPipeline(_seeded(lambda: _lcm("StableDiffusionPipeline")), Sampling(steps=3, guidance=7.3)),
    "LCM": TinyPipeline(_seeded(lambda: _lcm("LatentConsistencyModelPipeline")), Sampling(steps=3, guidance=7.3)),
    "SD, clip skip": TinyPipeline(lambda: tiny_sd().pipeline, options={"clip_skip": 1}),
    "SDXL, clip skip": TinyPipeline(_seeded(_deep_xl), options={"clip_skip": 1}),
    "SD with LoRA": TinyPipeline(_seeded(_adapted)),
    "SD with LoRA, fused": TinyPipeline(_seeded(_fused)),
    "SD with textual inversion": TinyPipeline(_seeded(_inverted)),
}
"""By name."""
