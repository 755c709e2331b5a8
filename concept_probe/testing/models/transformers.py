"""Tiny random pipelines with a diffusion transformer, of every class that loads."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from concept_probe.families import adopt
from concept_probe.families.diffusion.dit.subject import DitSubject
from concept_probe.testing.models.diffusion import WORDS, tiny_text_config, tokenizer

T5_WIDTH = 24
TEXT = 24
"""Tokens that T5 reads here."""
SIDE = 16
"""Of a picture, in pixels."""


def t5_tokenizer() -> T5Tokenizer:
    """Spells anything with letters; each word of WORDS is one token."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS)]
    pieces += [*string.ascii_letters, *string.digits, *"!,.:'-"]
    vocabulary = [(piece, -1.0 if len(piece) > 1 else -2.0) for piece in pieces]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=TEXT)


def t5(width: int = T5_WIDTH) -> T5EncoderModel:
    words = t5_tokenizer()
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    return T5EncoderModel(config)


def autoencoder(channels: int, levels: int = 2, **more: Any) -> AutoencoderKL:
    """Two `levels`, so that latents are half a picture's size."""
    return cast(Any, AutoencoderKL)(
        block_out_channels=(8,) * (levels - 1) + (16,),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIDE,
        **{"shift_factor": 0.1, "scaling_factor": 0.7, "use_quant_conv": False, "use_post_quant_conv": False, **more},
    )


def tiny_sd3(seed: int = 0) -> DitSubject:
    """StableDiffusion3Pipeline: two CLIPs and a T5, three joint blocks, the last without a text of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, words_2 = tokenizer(), tokenizer(pad="!")
        pipeline = cast(Any, StableDiffusion3Pipeline)(
            transformer=SD3Transformer2DModel(
                sample_size=8, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=4,
                joint_attention_dim=40, caption_projection_dim=32, pooled_projection_dim=40, out_channels=4,
                pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(4),
            text_encoder=CLIPTextModelWithProjection(tiny_text_config(16, "quick_gelu", words)),
            tokenizer=words,
            text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(24, "gelu", words_2)),
            tokenizer_2=words_2,
            text_encoder_3=t5(40),
            tokenizer_3=t5_tokenizer(),
        )  # fmt: skip
    return adopt(pipeline, f"tiny-sd3-{seed}")


def tiny_flux(seed: int = 0, *, guidance: bool = False) -> DitSubject:
    """FluxPipeline: a T5 and a CLIP, two joint and two single blocks; `guidance` as a number that it reads, or by passes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer()
        pipeline = cast(Any, FluxPipeline)(
            transformer=FluxTransformer2DModel(
                in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
                joint_attention_dim=T5_WIDTH, pooled_projection_dim=16, guidance_embeds=guidance, axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance),
            vae=autoencoder(4),
            text_encoder=CLIPTextModel(tiny_text_config(16, "quick_gelu", words)),
            tokenizer=words,
            text_encoder_2=t5(),
            tokenizer_2=t5_tokenizer(),
        )  # fmt: skip
    return adopt(pipeline, f"tiny-flux-{seed}")


def seeded(name: str, make: Callable[[], Any], side: int = SIDE) -> Callable[..., DitSubject]:
    """A subject around the pipeline that `make` makes, with weights from a seed and pictures of `side` pixels."""

    def made(seed: int = 0) -> DitSubject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipeline = make()
        subject = adopt(pipeline, f"tiny-{name}-{seed}")
        subject.picture_size = (side, side)
        return subject

    return made


def shifting() -> FlowMatchEulerDiscreteScheduler:
    """Shifted by the picture's size."""
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def _chroma() -> Any:
    return cast(Any, ChromaPipeline)(
        transformer=ChromaTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=T5_WIDTH, axes_dims_rope=(4, 6, 6), approximator_num_channels=16,
            approximator_hidden_dim=16, approximator_layers=1,
        ),
        scheduler=shifting(), vae=autoencoder(4), text_encoder=t5(), tokenizer=t5_tokenizer(),
    )  # fmt: skip


def _pixart(kind: Any, sample_size: int) -> Any:
    """Of models for `sample_size` 128 an α is told how large the picture is."""
    return kind(
        transformer=PixArtTransformer2DModel(
            sample_size=sample_size, num_layers=2, attention_head_dim=16, num_attention_heads=3, cross_attention_dim=48,
            caption_channels=T5_WIDTH, in_channels=4, out_channels=8,
            use_additional_conditions=kind is PixArtAlphaPipeline and sample_size == 128,
        ),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear"),
        vae=autoencoder(4, shift_factor=None), text_encoder=t5(), tokenizer=t5_tokenizer(),
    )  # fmt: skip


def _aura_flow() -> Any:
    words = t5_tokenizer()
    reads = UMT5Config(
        vocab_size=len(words), d_model=T5_WIDTH, d_kv=8, d_ff=2 * T5_WIDTH, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    return cast(Any, AuraFlowPipeline)(
        transformer=AuraFlowTransformer2DModel(
            sample_size=8, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=T5_WIDTH, caption_projection_dim=32, pos_embed_max_size=64,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=autoencoder(4, shift_factor=None), text_encoder=UMT5EncoderModel(reads), tokenizer=words,
    )  # fmt: skip


TRANSFORMERS: dict[str, Callable[..., DitSubject]] = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux, distilled": partial(tiny_flux, guidance=True),
    "chroma": seeded("chroma", _chroma),
    "pixart-alpha": seeded("pixart-alpha", partial(_pixart, PixArtAlphaPipeline, 8)),
    "pixart-alpha, size told": seeded("pixart-alpha-told", partial(_pixart, PixArtAlphaPipeline, 128)),
    "pixart-sigma": seeded("pixart-sigma", partial(_pixart, PixArtSigmaPipeline, 128)),
    "aura-flow": seeded("aura-flow", _aura_flow),
}
"""By name."""
