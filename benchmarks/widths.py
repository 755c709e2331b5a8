"""Pipelines as wide as real ones, with random weights; pictures are small, and what says so has fewer blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from concept_probe.testing.models.diffusion import tokenizer
from concept_probe.testing.models.transformers import t5_tokenizer

LENGTH = 77
"""Tokens that a CLIP text encoder reads."""
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
VAE = (128, 256, 512, 512)
SD14: dict[str, Any] = {
    "text": CLIP_L, "words": 49408, "unet": (320, 640, 1280, 1280), "heads": 8, "blocks": 2, "vae": VAE, "size": 64,
}  # fmt: skip
TINY: dict[str, Any] = {
    "text": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 12, "num_attention_heads": 2},
    "words": 1000, "unet": (32, 64), "heads": 2, "blocks": 1, "vae": (32, 64), "size": 8,
}  # fmt: skip


def stable_diffusion(asked: Mapping[str, Any]) -> Any:
    """A pipeline of one CLIP, a U-Net and an autoencoder, of the widths in `asked`."""
    torch.manual_seed(0)
    words = words_of_clip()
    text = CLIPTextModel(clip(asked["text"], words, vocabulary=asked["words"]))
    cross, plain = len(asked["unet"]) - 1, 1
    unet = UNet2DConditionModel(
        sample_size=asked["size"], block_out_channels=asked["unet"], layers_per_block=asked["blocks"],
        down_block_types=("CrossAttnDownBlock2D",) * cross + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * cross,
        cross_attention_dim=asked["text"]["hidden_size"], attention_head_dim=asked["heads"],
    )  # fmt: skip
    steps = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    side = asked["size"] * 2 ** (len(asked["vae"]) - 1)
    made: Any = StableDiffusionPipeline
    return made(
        vae=autoencoder(asked["vae"], side, layers_per_block=asked["blocks"]), text_encoder=text, tokenizer=words, unet=unet,
        scheduler=steps, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> Any:
    """Two CLIPs, and a U-Net of three levels with up to ten layers of attention in a block; pictures of 128 pixels."""
    torch.manual_seed(0)
    words, words_2 = words_of_clip(), words_of_clip("!")
    unet_of: Any = UNet2DConditionModel  # its widths are annotated more narrowly than they may be
    unet = unet_of(
        sample_size=16, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=6 * 256 + 1280,
    )  # fmt: skip
    made: Any = StableDiffusionXLPipeline
    return made(
        vae=autoencoder(VAE, 128, scaling_factor=0.13025), unet=unet, add_watermarker=False,
        text_encoder=CLIPTextModel(clip(CLIP_L, words)), tokenizer=words,
        text_encoder_2=CLIPTextModelWithProjection(clip(CLIP_G, words_2, act="gelu")), tokenizer_2=words_2,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
    )  # fmt: skip


def stable_diffusion_3(blocks: int = 12, layers: int = 2) -> Any:
    """SD3-medium with `blocks` of its 24 joint blocks and `layers` of its T5's 24; pictures of 64 pixels."""
    torch.manual_seed(0)
    words, words_2 = words_of_clip(), words_of_clip("!")
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=blocks, attention_head_dim=64,
        num_attention_heads=24, joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )  # fmt: skip
    made: Any = StableDiffusion3Pipeline
    return made(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=wide_autoencoder(),
        text_encoder=CLIPTextModelWithProjection(clip(CLIP_L, words)), tokenizer=words,
        text_encoder_2=CLIPTextModelWithProjection(clip(CLIP_G, words_2, act="gelu")), tokenizer_2=words_2,
        text_encoder_3=t5_xxl(layers), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def flux(blocks: int = 4, layers: int = 2) -> Any:
    """FLUX.1-dev with `blocks` of its 19 joint blocks, twice as many of its 38 single ones and `layers` of its T5's 24;
    pictures of 64 pixels."""
    torch.manual_seed(0)
    words = words_of_clip()
    transformer = FluxTransformer2DModel(
        in_channels=64, num_layers=blocks, num_single_layers=2 * blocks, attention_head_dim=128, num_attention_heads=24,
        joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
    )  # fmt: skip
    made: Any = FluxPipeline
    return made(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=wide_autoencoder(), text_encoder=CLIPTextModel(clip(CLIP_L, words)), tokenizer=words,
        text_encoder_2=t5_xxl(layers), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def words_of_clip(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    words = tokenizer(pad)
    words.model_max_length = LENGTH
    return words


def clip(
    widths: Mapping[str, Any], words: CLIPTokenizer, *, act: str = "quick_gelu", vocabulary: int = 49408
) -> CLIPTextConfig:
    special: dict[str, Any] = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPTextConfig(
        vocab_size=vocabulary, max_position_embeddings=LENGTH, hidden_act=act, projection_dim=widths["hidden_size"],
        **special, **widths,
    )  # fmt: skip


def t5_xxl(layers: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=layers, num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


def autoencoder(widths: tuple[int, ...], side: int, **more: Any) -> AutoencoderKL:
    depth, made = len(widths), cast(Any, AutoencoderKL)
    return made(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth, sample_size=side, **{"layers_per_block": 2, **more},
    )  # fmt: skip


def wide_autoencoder() -> AutoencoderKL:
    """Of 16 channels, as SD3 and FLUX have it."""
    return autoencoder(
        VAE, 64, latent_channels=16, shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False
    )  # fmt: skip


WIDTHS: dict[str, Callable[..., Any]] = {
    "sd14": lambda: stable_diffusion({**SD14, "size": 16}),
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
}
"""Shape to what makes it."""
