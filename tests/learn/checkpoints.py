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

import numpy as np
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


def dictionary_learning(folder: Path, **options: Any) -> Written:
    w = weights()
    trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": D, "dict_size": F, "k": K, "layer": 3, **options}
    write_json(folder / "config.json", trainer=trainer, buffer={"d_submodule": D, "io": "out", "ctx_len": 128})
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "decoder.weight": w["V"].mT.contiguous(), "b_dec": w["c"],
               "k": torch.tensor(K), "threshold": torch.tensor(0.7)}  # fmt: skip
    save_file(tensors, folder / "ae.safetensors")
    return _centred(K)


def _jumprelu(level: Tensor, factor: float = 1.0) -> Written:
    """x itself is encoded, after a factor; what exceeds its level fires."""
    w = {name: t.double() for name, t in weights().items()}
    pre = rows().double() * factor @ w["W"].mT + w["b"]
    codes = torch.where(pre > level.double(), pre.clamp_min(0), 0)
    return Written(codes, (codes @ w["V"] + w["c"]) / factor)


LEVELS = torch.linspace(0, 2, F)


def gemma_scope(folder: Path) -> Written:
    w = weights()
    named = {"W_enc": w["W"].mT, "b_enc": w["b"], "W_dec": w["V"], "b_dec": w["c"], "threshold": LEVELS}
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: t.numpy() for name, t in named.items()}
    np.savez(folder / "params.npz", **arrays)
    return _jumprelu(LEVELS)


def gemma_scope_2(folder: Path, **options: Any) -> Written:
    w = weights()
    write_json(folder / "config.json", **{"architecture": "jump_relu", "width": F, "l0": 60, "model_name": "gemma-v3",
                                          "hf_hook_point_in": "model.layers.1.output", **options})  # fmt: skip
    tensors = {"w_enc": w["W"].mT.contiguous(), "b_enc": w["b"], "w_dec": w["V"], "b_dec": w["c"], "threshold": LEVELS}
    save_file(tensors, folder / "params.safetensors")
    return _jumprelu(LEVELS)


def llama_scope(folder: Path, **options: Any) -> Written:
    """Rows are brought to the dataset's norm first; decoder rows have norm 1."""
    w = weights()
    factor = D**0.5 / 5.0
    config = {"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise",
              "dataset_average_activation_norm": {"in": 5.0, "out": 5.0}, "hook_point_in": "blocks.1.hook_resid_post",
              "hook_point_out": "blocks.1.hook_resid_post", "top_k": 50, "use_decoder_bias": True,
              "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": False}  # fmt: skip
    write_json(folder / "hyperparams.json", **{**config, **options})
    tensors = {"encoder.weight": w["W"], "encoder.bias": w["b"], "decoder.weight": w["V"].mT.contiguous(),
               "decoder.bias": w["c"]}  # fmt: skip
    (folder / "checkpoints").mkdir()
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return _jumprelu(torch.tensor(0.5 * factor), factor)


WRITERS: dict[str, Callable[[Path], Written]] = {
    "sae-lens": sae_lens,
    "sparsify": sparsify,
    "openai": openai,
    "dictionary_learning": dictionary_learning,
    "gemma-scope": gemma_scope,
    "gemma-scope-2": gemma_scope_2,
    "llama-scope": llama_scope,
}
"""By the names of `learn.interop.FORMATS`."""
