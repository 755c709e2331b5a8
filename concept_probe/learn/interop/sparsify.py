"""Checkpoints of eai-sparsify (module `sparsify`) and of code that grew from it: cfg.json and sae.safetensors."""

from __future__ import annotations

from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, refuse
from concept_probe.learn.sae import TopK

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def _read(file: Checkpoint) -> Parts:
    """z = TopK(ReLU((x - b_dec) W_encᵀ + b)), x̂ = z W_dec + b_dec.

    ReLU before the choice or after it gives the same codes: what is negative is 0 either way.
    """
    config, where = file.config, file.where
    refuse(config.get("transcode"), where, "transcode is true", "and a transcoder reads one site and writes another")
    refuse(config.get("skip_connection"), where, "skip_connection is true", "and an autoencoder has no such path")
    choice = config.get("activation", "topk")
    refuse(choice != "topk", where, f"activation is {choice!r}", "and only 'topk' is known")
    refuse(config.get("signed"), where, "signed is true", "and codes are never negative here")
    refuse(
        config.get("input_unit_norm"),
        where,
        "input_unit_norm is true",
        "which divides each row by its own size and can't be put into weights",
    )
    for option in ("batch_topk", "sample_topk"):
        refuse(
            config.get(option),
            where,
            f"{option} is true",
            "so which features of a row fire depends on other rows, and no threshold is stored; set it to false in "
            f"{CONFIG} to read the k largest of each row instead, which is another code",
        )
    d = file.whole("d_in")
    f = file.whole("num_latents") if config.get("num_latents") else d * file.whole("expansion_factor")
    shapes = {"encoder.weight": (f, d), "encoder.bias": (f,), "W_dec": (f, d), "b_dec": (d,)}
    weight, b_enc, W_dec, b_dec = file.take(shapes, f"{CONFIG} (d_in {d}, {f} latents)")
    return Parts(TopK(file.whole("k")), weight.mT, b_enc, W_dec, b_dec)


SPARSIFY = Format(CONFIG, WEIGHTS, _read)
