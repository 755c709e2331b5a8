"""Checkpoints of eai-sparsify (module `sparsify`) and of code that grew from it: cfg.json and sae.safetensors."""

from __future__ import annotations

from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, told_by
from concept_probe.learn.sae import TopK

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def _read(file: Checkpoint) -> Parts:
    """z = TopK(ReLU((x - b_dec) W_encᵀ + b)), x̂ = z W_dec + b_dec.

    ReLU before the choice or after it gives the same codes: what is negative is 0 either way.
    """
    config = file.config
    config.off("transcode", "and a transcoder reads one site and writes another")
    config.off("skip_connection", "and an autoencoder has no such path")
    choice = config.get("activation", "topk")
    if choice != "topk":
        raise ValueError(f"{file.where}: activation is {choice!r}, and only 'topk' is known; nothing was loaded")
    config.off("signed", "and codes are never negative here")
    config.off(
        "input_unit_norm", "which divides each row by its own size, in ways that differ between those who write it"
    )
    for option in ("batch_topk", "sample_topk"):
        config.off(
            option,
            "so which features of a row fire depends on other rows, and no threshold is stored; set it to false in "
            f"{CONFIG} to read the k largest of each row instead, which is another code",
        )
    d = config.whole("d_in")
    times = config.peek("expansion_factor")
    f = config.whole("num_latents") if config.get("num_latents") else d * config.whole("expansion_factor")
    shapes = {"encoder.weight": (f, d), "encoder.bias": (f,), "W_dec": (f, d), "b_dec": (d,)}
    weight, b_enc, W_dec, b_dec = file.take(shapes, f"{CONFIG} (d_in {d}, {f} latents)")
    activation = TopK(config.whole("k"))
    file.finish()
    made_by = {**told_by("sparsify", config), "expansion_factor": times}
    return Parts(activation, weight.mT, b_enc, W_dec, b_dec, made_by=made_by)


SPARSIFY = Format(
    CONFIG,
    WEIGHTS,
    lambda names, config: names >= {"encoder.weight", "W_dec"},
    _read,
    "encoder.weight, encoder.bias, W_dec, b_dec",
)
