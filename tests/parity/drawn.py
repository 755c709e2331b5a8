"""What formulas are tried on: random tensors, a tiny pipeline, and what its parts say when they are asked directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from concept_probe.families import CausalLMSubject, UNetSubject
from concept_probe.learn.sae import Relu, Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Concept, Prompt, Score, Site, Splits, Subspace

Pair = tuple[Tensor, Tensor]
"""What the authors' formula gives, and what this project's method gives with their settings."""
Case = Callable[[], Pair]


def relative(pair: Pair) -> float:
    """|ours - theirs| / |theirs|."""
    theirs, ours = (x.detach().double().flatten() for x in pair)
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def pipeline() -> UNetSubject:
    return tiny_sd()


@cache
def speaker() -> CausalLMSubject:
    return LANGUAGE["gpt2"]()


def names(target: str = "cat", anchor: str = "dog", others: Sequence[str] = ("sun", "red", "thing")) -> Concept:
    """A concept whose prompts are bare names, as published code has them."""

    def bare(*words: str) -> Splits:
        return Splits(fit=tuple(Prompt(word, word) for word in words))

    plain = replace(tiny_concept(), target=bare(target), anchor=bare(anchor), neighbours=bare(*others))
    return replace(plain, paraphrases=Splits(), implicit=Splits(), unrelated=Splits())


def encoder() -> Any:
    """The text encoder itself."""
    return pipeline().components["text_encoder"]


def ids_of(text: str) -> Tensor:
    """(t,) as the tokenizer has them, padded."""
    return pipeline().tokenise([Prompt(text)]).ids[0][0]


@torch.no_grad()
def states_of(text: str) -> Tensor:
    """(t, d) what the text encoder itself gives, float64."""
    return encoder()(ids_of(text)[None]).last_hidden_state[0].double()


def end_of(text: str) -> int:
    """Place of the end token: the first of its kind."""
    return int((ids_of(text) == encoder().config.eos_token_id).nonzero()[0])


def said(x: Tensor, times: Tensor, texts: Sequence[str]) -> Tensor:
    """(n, c, h, w) what the U-Net itself predicts at latents under texts, in its own dtype."""
    states = torch.stack([states_of(text) for text in texts]).float()
    return pipeline().components["unet"](x, times, encoder_hidden_states=states).sample


def text_sae(k: int | None = None) -> Sae:
    """An autoencoder over the first layer of the text encoder, with biases; of k features, or rectified alone."""
    rows = torch.nn.functional.normalize(drawn(64, 16, seed=3).float(), dim=1)
    return Sae(
        pipeline().sites("text_stream")[0], Relu() if k is None else TopK(k), W_enc=rows.mT.contiguous(),
        b_enc=0.1 * drawn(64, seed=4).float(), W_dec=rows, b_dec=0.2 * drawn(16, seed=5).float(),
    )  # fmt: skip


def space(sae: Sae, *features: int, site: Site | None = None) -> Subspace:
    certain = Score("made by a test", 1.0, 1.0, 1.0, 1)
    chosen = list(features or (0,))
    return Subspace(site or sae.site, sae.decoder[chosen].mT, "activation", certain, features=tuple(chosen), codec=sae)
