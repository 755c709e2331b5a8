"""Tiny random pipelines of every kind of diffusion subject."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from concept_probe.families import UNetSubject, adopt

LENGTH = 20
WORDS = ("a", "the", "cat", "dog", "sun", "of", "in", "red", "picture", "thing")


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Spells anything with letters; words of WORDS of up to three letters are one token."""
    pieces = [c + end for end in ("", "</w>") for c in string.ascii_lowercase + string.digits + "!,.:'-"]
    merges = []
    for word in WORDS:
        if len(word) == 2:
            merges.append((word[0], word[1] + "</w>"))
        if len(word) == 3:
            merges += [(word[0], word[1]), (word[:2], word[2] + "</w>")]
    pieces += [a + b for a, b in dict.fromkeys(merges)]
    vocabulary = {p: i for i, p in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=LENGTH, pad_token=pad)


def tiny_text_config(width: int, act: str, words: CLIPTokenizer, layers: int = 2) -> CLIPTextConfig:
    # The libraries annotate these arguments more narrowly than they take them.
    special: dict[str, Any] = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        hidden_act=act,
        projection_dim=width,
        **special,
    )


def tiny_unet(width: int, **more) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
        **{"in_channels": 4, **more},
    )


def tiny_vae() -> AutoencoderKL:
    return cast(Any, AutoencoderKL)(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )


def tiny_sd(seed: int = 0) -> UNetSubject:
    """StableDiffusionPipeline: 16 wide relu text encoder, 16 x 16 pictures, DDIM."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer()
        pipeline = cast(Any, StableDiffusionPipeline)(
            vae=tiny_vae(),
            text_encoder=CLIPTextModel(tiny_text_config(16, "relu", words)),
            tokenizer=words,
            unet=tiny_unet(16),
            scheduler=DDIMScheduler(
                beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return adopt(pipeline, f"tiny-sd-{seed}")


def tiny_sdxl(seed: int = 0) -> UNetSubject:
    """StableDiffusionXLPipeline: two text encoders, 16 and 24 wide, a pooled embedding, 16 x 16 pictures, Euler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, words_2 = tokenizer(), tokenizer(pad="!")
        pipeline = cast(Any, StableDiffusionXLPipeline)(
            vae=tiny_vae(),
            text_encoder=CLIPTextModel(tiny_text_config(16, "quick_gelu", words)),
            text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(24, "gelu", words_2)),
            tokenizer=words,
            tokenizer_2=words_2,
            unet=tiny_unet(
                40,
                transformer_layers_per_block=(1, 2),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 24,
            ),
            scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
            add_watermarker=False,
        )
    return adopt(pipeline, f"tiny-sdxl-{seed}")


DIFFUSION: dict[str, Callable[..., UNetSubject]] = {"sd": tiny_sd, "sdxl": tiny_sdxl}
"""By name."""
