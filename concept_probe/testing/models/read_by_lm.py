"""Tiny random pipelines with a diffusion transformer whose text is read by a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import diffusers
from transformers import (
    CLIPImageProcessorPil,
    Gemma2Config,
    Gemma2Model,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from concept_probe.families import Subject
from concept_probe.testing.models.language import TEMPLATE, lm_tokenizer
from concept_probe.testing.models.transformers import SIDE, autoencoder, seeded, shifting

TEXT_WIDTH = 16


def _words() -> Any:
    return lm_tokenizer(pads="<pad>", chat=TEMPLATE)


def language_options(words: Any, layers: int = 2, **more: Any) -> dict[str, Any]:
    """What the configurations of all language models take."""
    return {
        "vocab_size": len(words), "hidden_size": TEXT_WIDTH, "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
        "initializer_range": 0.2, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id, **more,
    }  # fmt: skip


def _flux_2_autoencoder() -> diffusers.AutoencoderKLFlux2:
    made = cast(Any, diffusers.AutoencoderKLFlux2)(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=SIDE,
    )
    made.bn.running_mean.normal_()
    made.bn.running_var.uniform_(0.5, 2.0)
    return made


def _flux_2_transformer(layers: int, guidance: bool) -> diffusers.Flux2Transformer2DModel:
    return diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=layers * TEXT_WIDTH, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )  # fmt: skip


def _flux_2_klein(distilled: bool = False) -> Any:
    words = _words()
    return cast(Any, diffusers.Flux2KleinPipeline)(
        scheduler=shifting(), vae=_flux_2_autoencoder(), tokenizer=words,
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**language_options(words, layers=28, head_dim=8))),
        transformer=_flux_2_transformer(3, guidance=False), is_distilled=distilled,
    )  # fmt: skip


def _flux_2() -> Any:
    """With a processor that does as Pixtral's, which needs torchvision."""
    words = lm_tokenizer(pads="<pad>")
    words.add_special_tokens({"additional_special_tokens": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]})
    frame = "<s>{% for m in messages %}[{{ m['role'] }}]{{ m['content'][0]['text'] }}[/]{% endfor %}"
    looks = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    reads = {"model_type": "mistral", **language_options(words, layers=31, head_dim=8)}
    return cast(Any, diffusers.Flux2Pipeline)(
        scheduler=shifting(), vae=_flux_2_autoencoder(),
        tokenizer=LlavaProcessor(CLIPImageProcessorPil(), words, chat_template=frame, image_token="[IMG]"),
        text_encoder=Mistral3ForConditionalGeneration(Mistral3Config(text_config=reads, vision_config=looks)),
        transformer=_flux_2_transformer(3, guidance=True),
    )  # fmt: skip


def _qwen_image() -> Any:
    words = _words()
    text = language_options(
        words, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "type": "default"}
    )
    looks = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": TEXT_WIDTH,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    return cast(Any, diffusers.QwenImagePipeline)(
        scheduler=shifting(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.1, 2.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=looks)),
        tokenizer=words,
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def _z_image() -> Any:
    words = _words()
    return cast(Any, diffusers.ZImagePipeline)(
        scheduler=shifting(), vae=autoencoder(4), tokenizer=words,
        text_encoder=Qwen3Model(Qwen3Config(**language_options(words, layers=3, head_dim=8))),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=TEXT_WIDTH,
            axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
        ),
    )  # fmt: skip


def _gemma(words: Any, layers: int) -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**language_options(words, layers, head_dim=8, query_pre_attn_scalar=8)))


def _sana() -> Any:
    words = lm_tokenizer(begins="<s>", pads="<pad>")
    return cast(Any, diffusers.SanaPipeline)(
        tokenizer=words, text_encoder=_gemma(words, 2),
        vae=diffusers.AutoencoderDC(
            latent_channels=4, attention_head_dim=8, encoder_block_out_channels=(8, 16), decoder_block_out_channels=(8, 16),
            encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()), scaling_factor=0.4,
        ),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=16, sample_size=16,
            num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=TEXT_WIDTH,
            timestep_scale=0.7,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
    )  # fmt: skip


def _lumina_2() -> Any:
    words = lm_tokenizer(begins="<s>", pads="<pad>")
    return cast(Any, diffusers.Lumina2Pipeline)(
        tokenizer=words, text_encoder=_gemma(words, 3), vae=autoencoder(4, levels=4), scheduler=shifting(),
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
            num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 6, 6), axes_lens=(300, 32, 32), cap_feat_dim=TEXT_WIDTH,
        ),
    )  # fmt: skip


READ_BY_LM: dict[str, Callable[..., Subject]] = {
    "flux2-klein": seeded("flux2-klein", _flux_2_klein),
    "flux2-klein-distilled": seeded("flux2-klein-distilled", lambda: _flux_2_klein(distilled=True)),
    "flux2": seeded("flux2", _flux_2),
    "qwen-image": seeded("qwen-image", _qwen_image),
    "z-image": seeded("z-image", _z_image),
    "sana": seeded("sana", _sana, side=32),
    "lumina-2": seeded("lumina-2", _lumina_2, side=64),
}
"""By name."""
