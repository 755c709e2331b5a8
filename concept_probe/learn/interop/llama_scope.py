"""Llama Scope and what its authors' code writes: hyperparams.json (or config.json) and layers as torch's Linear holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, centred, told_by, widths
from concept_probe.learn.sae import Activation, JumpRelu, Relu, TopK

ABOUT_ONE = 0.02
"""How far from 1 norms of decoder rows may be for those who wrote them in bfloat16 to have meant 1."""
LOGGED = "log_jumprelu_threshold"


def _read(file: Checkpoint) -> Parts:
    """codes = activation(s x W_encᵀ + b), x̂ = (codes W_decᵀ + c) / s, s = √d / average norm of the dataset's rows.

    Codes are those of sae-lens's reader; in the authors' own code they are smaller by s, with the same reconstruction.
    """
    config, where = file.config, file.where
    source, target = config.get("hook_point_in"), config.get("hook_point_out")
    if target not in (None, "", source):
        raise ValueError(
            f"{where}: hook_point_in is {source!r} and hook_point_out {target!r}: a transcoder reads one site and writes "
            "another; nothing was loaded"
        )
    config.off("use_glu_encoder", "which multiplies codes by a gate that is not known here")
    f, d = widths(file, "encoder.weight")
    shapes = {"encoder.weight": (f, d), "encoder.bias": (f,), "decoder.weight": (d, f)}
    encoder, b_enc, decoder = file.take(shapes, f"encoder.weight {(f, d)}")
    b_dec = encoder.new_zeros(d)
    if config.flag("use_decoder_bias", True):
        (b_dec,) = file.take({"decoder.bias": (d,)}, f"encoder.weight {(f, d)}")
    config.agrees("d_model", d, f"encoder.weight is {(f, d)}")
    config.agrees("d_sae", f, f"encoder.weight is {(f, d)}")
    if config.peek("d_sae") is None and config.get("expansion_factor") is not None:
        config.agrees("expansion_factor", f // d, f"encoder.weight is {(f, d)}")
    W_enc, W_dec = encoder.mT, decoder.mT
    scale = _scale(file, d, source)
    activation = _activation(file, f, scale)
    if config.flag("sparsity_include_decoder_norm") and not isinstance(activation, Relu):
        norms = torch.linalg.vector_norm(W_dec.double(), dim=1)
        if float((norms - 1).abs().max()) > ABOUT_ONE:
            raise ValueError(
                f"{where}: sparsity_include_decoder_norm is true and norms of decoder rows are {float(norms.min()):.3g} to "
                f"{float(norms.max()):.3g}: readers of this format differ in what fires then; nothing was loaded: bring the "
                "rows to norm 1 with the authors' code"
            )
    if not config.flag("apply_decoder_bias_to_pre_encoder"):
        b_enc = centred(W_enc, b_enc, b_dec)
    file.finish()
    made_by = told_by("llama-scope", config) | {"hook_name": source}
    hook = source if isinstance(source, str) else None
    return Parts(activation, W_enc, b_enc, W_dec, b_dec, scale, hook=hook, made_by=made_by)


def _activation(file: Checkpoint, f: int, scale: float) -> Activation:
    config = file.config
    choice = config.choice("act_fn", ("jumprelu", "topk", "relu"), "jumprelu" if LOGGED in file.tensors else "")
    if choice == "topk":
        return TopK(config.whole("top_k"))
    config.get("top_k")  # of training: the threshold stands for it
    if choice == "relu":
        return Relu()
    if LOGGED in file.tensors:
        return JumpRelu(file.take({LOGGED: (f,)}, f"{f} features")[0].exp())
    if choice != "jumprelu":
        raise ValueError(f"{file.where}: act_fn is not in the configuration, so what fires is not known")
    return JumpRelu(torch.full((f,), config.number("jump_relu_threshold") * scale, dtype=torch.float32))


def _scale(file: Checkpoint, d: int, source: object) -> float:
    """√d / the average norm of the rows that it was trained on; 1 where rows are read as they are."""
    config = file.config
    how = config.choice("norm_activation", ("dataset-wise", "none", "inference", "no"), "dataset-wise")
    norms = config.section("dataset_average_activation_norm")
    if how != "dataset-wise":
        return 1.0
    key = "in" if "in" in norms else str(source)
    if key in norms:
        average = norms.number(key)
    else:
        name = f"dataset_average_activation_norm.{source}"
        if name not in file.tensors:
            raise ValueError(
                f"{file.where}: norm_activation is 'dataset-wise' and dataset_average_activation_norm is not there, so the "
                "factor on its rows is not known; nothing was loaded"
            )
        average = float(_one(file, name))
    for other in [n for n in file.tensors if n.startswith("dataset_average_activation_norm.")]:
        file.pass_over(other)
    if (out := norms.get("out", average)) != average:
        raise ValueError(f"{file.where}: rows are scaled by {average} and written by {out}: that is a transcoder")
    if not average > 0:
        raise ValueError(f"{file.where}: dataset_average_activation_norm is {average}; it must be positive")
    return d**0.5 / average


def _one(file: Checkpoint, name: str) -> Tensor:
    return file.tensors[name].reshape(-1)[0]


def _tells(names: frozenset[str], config: Keys) -> bool:
    told = ("hook_point_in", "norm_activation", "act_fn", "jump_relu_threshold", "sparsity_include_decoder_norm")
    return names >= {"encoder.weight", "decoder.weight"} and any(key in config for key in told)


_NEEDS = "encoder.weight, encoder.bias, decoder.weight, decoder.bias, and hook_point_in in the configuration"
LLAMA_SCOPE = Format(
    "hyperparams.json",
    "checkpoints/*.safetensors",
    _tells,
    _read,
    _NEEDS,
    (("hyperparams.json", "*.safetensors"), ("config.json", "*.safetensors")),
)
