"""Tiny random models of every family: real classes, random weights, milliseconds."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from concept_probe.families import CausalLMSubject, Subject, UNetSubject, adopt
from concept_probe.types import Concept, Prompt, Query, Sampling, Splits
from tests.tiny_lm import LANGUAGE

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


def _text_config(width: int, act: str, words: CLIPTokenizer, layers: int = 2) -> CLIPTextConfig:
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


def _unet(width: int, **more) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
        **more,
    )


def _vae() -> AutoencoderKL:
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
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config(16, "relu", words)),
            tokenizer=words,
            unet=_unet(16),
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
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config(16, "quick_gelu", words)),
            text_encoder_2=CLIPTextModelWithProjection(_text_config(24, "gelu", words_2)),
            tokenizer=words,
            tokenizer_2=words_2,
            unet=_unet(
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


FAMILIES: dict[str, Callable[..., UNetSubject]] = {"sd": tiny_sd, "sdxl": tiny_sdxl}
"""Those that make pictures."""
EVERY: dict[str, Callable[..., Subject]] = {**FAMILIES, **LANGUAGE}
"""All of them; `tiny_lm.LANGUAGE` are those that write texts."""


def answered(subject: Subject, queries: list[Query]) -> Tensor:
    """What a subject makes of queries, in numbers: pictures, or the logits of what it writes first and on the way."""
    if isinstance(subject, CausalLMSubject):
        written = subject.generate(queries, Sampling(tokens=4, temperature=1.0))
        going_on = [Prompt(q.prompt.text + text, q.prompt.subject) for q, text in zip(queries, written, strict=True)]
        return torch.cat([subject.next_logits([q.prompt for q in queries]), subject.next_logits(going_on)])
    return subject.generate(queries, Sampling(steps=2, guidance=3.0))


def save(subject: Subject, folder: Path) -> Path:
    """Write a subject as a folder that `load` reads."""
    subject.pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _splits(word: str, label: str | None, named: bool = True) -> Splits:
    def prompts(*texts: str) -> tuple[Prompt, ...]:
        return tuple(Prompt(t.format(word), word if named else None, label) for t in texts)

    return Splits(
        fit=prompts("a {}", "the {}", "the red {}", "a {} in the sun"),
        select=prompts("a red {}", "one {}", "my {}"),
        test=prompts("that {}", "see the {}", "this {}"),
    )


def tiny_concept() -> Concept:
    """`cat`, with a few prompts of every kind and split, and four random pictures as examples."""
    return Concept(
        name="cat",
        target=_splits("cat", "cat"),
        paraphrases=_splits("kitty", "cat"),
        implicit=_splits("pet that purrs", "cat", named=False),
        neighbours=_splits("dog", "dog"),
        anchor=_splits("thing", None),
        unrelated=_splits("sun", "sun"),
        examples=torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7)),
    )


@dataclass(frozen=True)
class TinyRecogniser:
    """A fixed random linear map: repeatable, and right about nothing."""

    name: str = "tiny"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(-1)

    def logits(self, images: Tensor) -> Tensor:
        weights = torch.randn(3 * 4 * 4, len(self.labels), generator=torch.Generator().manual_seed(0))
        small = torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) - 0.5
        return 8 * small @ weights.to(small.device)


def tiny_recogniser() -> TinyRecogniser:
    """A recogniser of the labels of `tiny_concept`."""
    return TinyRecogniser()
