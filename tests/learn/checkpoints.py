"""Published checkpoints in every format that is read, written as their own code writes them, and what they compute.

The arithmetic here is the format's own, in float64 and in the words of its authors' formula, so that a
reader is held against something that it had no part in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

D, F, K = 16, 48, 5


def rows(n: int = 64) -> Tensor:
    return 0.3 + torch.randn(n, D, generator=torch.Generator().manual_seed(5))


def weights() -> dict[str, Tensor]:
    """W (f, d), b (f,), V (f, d), c (d,): encoder and decoder with rows of uneven norm."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g)

    return {"W": draw(F, D), "b": draw(F), "V": draw(F, D) * torch.linspace(0.5, 2, F)[:, None], "c": draw(D)}


def keep(pre: Tensor, k: int | None) -> Tensor:
    """Codes (n, f): what is positive and, with `k`, among the k largest of its row."""
    if k is None:
        return pre.clamp_min(0)
    least = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(pre >= least, pre, 0).clamp_min(0)


@dataclass(frozen=True)
class Written:
    codes: Tensor
    """(n, f) float64 of `rows()`."""
    reconstruction: Tensor
    """(n, d) float64"""


def write_json(path: Path, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _centred(k: int | None) -> Written:
    w = {name: t.double() for name, t in weights().items()}
    codes = keep((rows().double() - w["c"]) @ w["W"].mT + w["b"], k)
    return Written(codes, codes @ w["V"] + w["c"])


def sparsify(folder: Path, **options: Any) -> Written:
    w = weights()
    write_json(folder / "cfg.json", **{"d_in": D, "expansion_factor": F // D, "num_latents": 0, "k": K, "activation": "topk",
                                       "normalize_decoder": True, "multi_topk": False, "skip_connection": False,
                                       "transcode": False, **options})  # fmt: skip
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "W_dec": w["V"], "b_dec": w["c"]}
    save_file(tensors, folder / "sae.safetensors")
    return _centred(K)


def openai(folder: Path, **options: Any) -> Written:
    w = weights()
    config = {"n_dirs_local": F, "d_model": D, "k": K, "auxk": 32, "dead_steps_threshold": 1000, **options}
    write_json(folder / "config.json", **{name: value for name, value in config.items() if value is not None})
    tensors = {"encoder.weight": w["W"], "latent_bias": w["b"], "decoder.weight": w["V"].mT.contiguous()}
    tensors |= {"pre_bias": w["c"], "stats_last_nonzero": torch.zeros(F, dtype=torch.long)}
    save_file(tensors, folder / "state_dict.safetensors")
    return _centred(config["k"])


def sae_lens(folder: Path, **options: Any) -> Written:
    w = weights()
    write_json(folder / "cfg.json", **{"architecture": "topk", "d_in": D, "d_sae": F, "k": K, "dtype": "float32",
                                       "apply_b_dec_to_input": True, "normalize_activations": "none",
                                       "metadata": {"sae_lens_version": "6.0.0"}, **options})  # fmt: skip
    tensors = {"W_enc": w["W"].mT.contiguous(), "b_enc": w["b"], "W_dec": w["V"], "b_dec": w["c"]}
    save_file(tensors, folder / "sae_weights.safetensors")
    return _centred(K)


WRITERS: dict[str, Callable[[Path], Written]] = {"sae-lens": sae_lens, "sparsify": sparsify, "openai": openai}
"""By the names of `learn.interop.FORMATS`."""
