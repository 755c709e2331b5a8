"""Checkpoints of OpenAI's sparse_autoencoder and of the text-to-image work that took over its names.

config.json and one file of weights. As published the weights are a pickle; the message that refuses one says how to convert it.
"""

from __future__ import annotations

from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, refuse
from concept_probe.learn.sae import Relu, TopK

CONFIG, WEIGHTS = "config.json", "*.safetensors"
WIDTHS = {"d": ("d_model", "n_inputs"), "f": ("n_dirs", "n_dirs_local", "n_latents")}
"""What configurations call the width of the site and the number of features; checked where they are there."""


def _read(file: Checkpoint) -> Parts:
    """z = activation((x - pre_bias) Wᵀ + latent_bias), x̂ = z W_decᵀ + pre_bias.

    The activation is TopK where the configuration gives `k`, else ReLU.
    """
    config, where = file.config, file.where
    refuse(
        config.get("normalize"),
        where,
        "normalize is true",
        "which divides each row by its own size and can't be put into weights",
    )
    choice = config.get("activation", "TopK" if config.get("k") else "ReLU")
    refuse(str(choice).lower() not in ("topk", "relu"), where, f"activation is {choice!r}", "and TopK or ReLU is known")
    encoder = file.tensors.get("encoder.weight")
    if encoder is None or encoder.ndim != 2:
        held = ", ".join(sorted(file.tensors))
        raise ValueError(f"{where}: no matrix encoder.weight among its tensors ({held})")
    f, d = encoder.shape
    for letter, found in (("d", d), ("f", f)):
        for key in WIDTHS[letter]:
            if key in config and config[key] != found:
                raise ValueError(f"{where}: encoder.weight is {(f, d)}, {CONFIG} says {key} {config[key]}")
    shapes = {"latent_bias": (f,), "pre_bias": (d,)}
    b_enc, b_dec = file.take(shapes, f"encoder.weight {(f, d)}")
    if "decoder.weight" not in file.tensors and config.get("tied"):
        W_dec = encoder
    else:
        W_dec = file.take({"decoder.weight": (d, f)}, f"encoder.weight {(f, d)}")[0].mT
    activation = TopK(file.whole("k")) if str(choice).lower() == "topk" else Relu()
    return Parts(activation, encoder.mT, b_enc, W_dec, b_dec)


OPENAI = Format(CONFIG, WEIGHTS, _read)
