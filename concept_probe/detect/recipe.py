"""Whether a subject is of the recipe of the embedded models: told by what it is made of, never by its name."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from concept_probe.testbed import WEIGHTS

MOST_MOVED = 0.05
"""The most that the autoencoder's weights may differ from the recipe's, in norm: rounding to 8 bits and light training
stay below, another training does not."""


def is_of_recipe(subject: Any) -> bool:
    """Whether a subject's autoencoder is that of the embedded models, as closely as rounding leaves it, and its tokens
    are theirs (with others learned beside them)."""
    vae = getattr(subject, "components", {}).get("vae")
    tokenizer = getattr(getattr(subject, "pipeline", None), "tokenizer", None)
    if vae is None or tokenizer is None:
        return False
    words = tokenizer.get_vocab()
    if any(words.get(word) != token for word, token in _words().items()):
        return False
    return _is_near({name.replace("_orig_mod.", ""): x for name, x in vae.state_dict().items()}, _weights())


@torch.no_grad()
def _is_near(found: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    if found.keys() != own.keys() or any(found[k].shape != own[k].shape or found[k].is_meta for k in own):
        return False
    moved = sum(float((found[k].float() - own[k].to(found[k].device)).square().sum()) for k in own)
    return moved <= MOST_MOVED**2 * sum(float(x.square().sum()) for x in own.values())  # not for values that are NaN


@cache
def _weights() -> dict[str, Tensor]:
    file = WEIGHTS / "emoji" / "vae" / "diffusion_pytorch_model.safetensors"
    return {name: x.float() for name, x in load_file(file).items()}


@cache
def _words() -> dict[str, int]:
    written = json.loads((WEIGHTS / "emoji" / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    return written["model"]["vocab"]
