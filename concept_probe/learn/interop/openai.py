"""Checkpoints of OpenAI's sparse_autoencoder and of the text-to-image work that took over its names.

config.json and one file of weights. As published the weights are a pickle; the message that refuses one says how to convert it.
"""

from __future__ import annotations

import math
from typing import Any

from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, told_by, widths
from concept_probe.learn.sae import Relu, TopK

CONFIG, WEIGHTS = "config.json", "*.safetensors"
WIDTHS = {"d": ("d_model", "n_inputs"), "f": ("n_dirs", "n_dirs_local", "n_latents")}
"""What configurations call the width of the site and the number of features; checked where they are there."""
COUNTED = "latents_activation_frequency"
"""A tensor of the release that reads language models; its loader normalises each row of a TopK autoencoder."""
STATISTICS = ("stats_last_nonzero", COUNTED, "latents_mean_square")
OF_CHANGES = "n_dirs"
"""A key of the published autoencoders of text-to-image blocks, which read what a block adds to its input."""


def _read(file: Checkpoint) -> Parts:
    """z = activation((n(x) - pre_bias) Wᵀ + latent_bias), x̂ = n⁻¹(z W_decᵀ + pre_bias).

    The activation is TopK where the configuration gives `k`; ValueError where it names neither. n is LayerNorm without parameters where
    `normalize` is true, and where the configuration does not say and the file is one whose own loader does it.
    """
    config, where = file.config, file.where
    state = config.section("activation_state_dict")
    k = config.get("k", state.get("k"))
    count = None if k is None else _count(file, k)
    choice = config.get("activation", None if count is None else "TopK")
    if choice is None:
        raise ValueError(
            f"{where}: the configuration gives neither k nor activation, so it may be TopK, whose k no weight tells, or ReLU; "
            'put "k": N or "activation": "ReLU" into it. Nothing was loaded'
        )
    choice = str(choice)
    if choice.lower() not in ("topk", "relu"):
        raise ValueError(f"{where}: activation is {choice!r}, and TopK or ReLU is known; nothing was loaded")
    topk = choice.lower() == "topk"
    if (after := state.get("postact_fn", config.get("postact_fn"))) and str(after).lower() != "relu":
        raise ValueError(f"{where}: postact_fn is {after!r}, and ReLU is known; nothing was loaded")
    if not topk and count:
        raise ValueError(f"{where}: activation is {choice!r} and k is {k!r}, which contradict each other")
    f, d = widths(file, "encoder.weight")
    file.pass_over("encoder.weight")
    encoder = file.tensors["encoder.weight"]
    for letter, found in (("d", d), ("f", f)):
        for key in WIDTHS[letter]:
            config.agrees(key, found, f"encoder.weight is {(f, d)}")
    b_enc, b_dec = file.take({"latent_bias": (f,), "pre_bias": (d,)}, f"encoder.weight {(f, d)}")
    if "decoder.weight" not in file.tensors and config.flag("tied"):
        W_dec = encoder
    else:
        config.get("tied")
        W_dec = file.take({"decoder.weight": (d, f)}, f"encoder.weight {(f, d)}")[0].mT
    activation = TopK(_count(file, count)) if topk else Relu()
    by_rows = config.flag("normalize", topk and COUNTED in file.tensors)
    reads = config.choice("reads", ("out", "change"), "change" if config.peek(OF_CHANGES) and topk else "out")
    file.pass_over(*STATISTICS)
    file.finish()
    return Parts(
        activation,
        encoder.mT,
        b_enc,
        W_dec,
        b_dec,
        row_norm="layer_norm" if by_rows else "none",
        reads=reads,
        made_by=told_by("openai", config, state),
    )


def _count(file: Checkpoint, k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int | float) or not 1 <= k < math.inf or k != int(k):
        raise ValueError(f"{file.where}: k is {k!r} in the configuration; a whole number is needed")
    return int(k)


OPENAI = Format(
    CONFIG,
    WEIGHTS,
    lambda names, config: names >= {"encoder.weight", "latent_bias", "pre_bias"},
    _read,
    "encoder.weight, latent_bias, pre_bias",
)
