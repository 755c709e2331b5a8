"""Checkpoints of dictionary_learning: config.json with its trainer, and ae.pt, converted to safetensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.lens_reader import gated_as_jumprelu
from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, centred, told_by, widths
from concept_probe.learn.sae import Activation, BatchTopK, JumpRelu, Relu, TopK
from concept_probe.registry import look_up

CONFIG, WEIGHTS = "config.json", "*.safetensors"
Weights = tuple[Activation, Tensor, Tensor, Tensor, Tensor]
"""The activation, W_enc (d, f), b_enc (f,), W_dec (f, d) and b_dec (d,)."""


def _linear(file: Checkpoint, bias: str, *, encoder_bias: bool = True) -> tuple[Tensor, ...]:
    """W_enc, b_dec, W_dec and b_enc of layers that torch's Linear holds."""
    f, d = widths(file, "encoder.weight")
    shapes = {"encoder.weight": (f, d), "decoder.weight": (d, f), bias: (d,)}
    if encoder_bias:
        shapes["encoder.bias"] = (f,)
    encoder, decoder, b_dec, *b_enc = file.take(shapes, f"encoder.weight {(f, d)}")
    return encoder.mT, b_dec, decoder.mT, *b_enc


def _plain(file: Checkpoint, trainer: Keys) -> Weights:
    """Decoder rows are brought to norm 1 and codes to their units, as the library's own loader does."""
    W_enc, b_dec, W_dec, b_enc = _linear(file, "bias")
    norms = torch.linalg.vector_norm(W_dec, dim=1)
    if not torch.allclose(norms, torch.ones_like(norms)):
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None].clamp_min(1e-30)
    return Relu(), W_enc, b_enc, W_dec, b_dec


def _new(file: Checkpoint, trainer: Keys) -> Weights:
    """x itself is encoded; the decoder's bias is written alone."""
    W_enc, b_dec, W_dec, b_enc = _linear(file, "decoder.bias")
    return Relu(), W_enc, centred(W_enc, b_enc, b_dec), W_dec, b_dec


def _gated(file: Checkpoint, trainer: Keys) -> Weights:
    W_enc, b_dec, W_dec = _linear(file, "decoder_bias", encoder_bias=False)
    f = W_enc.shape[1]
    biases = file.take({"gate_bias": (f,), "mag_bias": (f,), "r_mag": (f,)}, f"{f} features")
    activation, W_enc, b_enc = gated_as_jumprelu(W_enc, *biases)
    return activation, W_enc, b_enc, W_dec, b_dec


def _topk(file: Checkpoint, trainer: Keys) -> Weights:
    """The k largest of each row; the threshold that is stored beside them is not used by its own `encode`."""
    W_enc, b_dec, W_dec, b_enc = _linear(file, "b_dec")
    file.pass_over("threshold")
    return TopK(_k(file, trainer)), W_enc, b_enc, W_dec, b_dec


def _batch_topk(file: Checkpoint, trainer: Keys) -> Weights:
    W_enc, b_dec, W_dec, b_enc = _linear(file, "b_dec")
    return _learned(file, trainer), W_enc, b_enc, W_dec, b_dec


def _matryoshka(file: Checkpoint, trainer: Keys) -> Weights:
    W_enc, b_enc, W_dec, b_dec = _matrices(file)
    if "group_sizes" in file.tensors:
        file.pass_over("group_sizes")
        if (total := int(file.tensors["group_sizes"].sum())) != len(b_enc):
            raise ValueError(f"{file.where}: group_sizes add up to {total}, and there are {len(b_enc)} features")
    for key in ("group_sizes", "group_fractions", "group_weights"):
        trainer.get(key)
    return _learned(file, trainer), W_enc, b_enc, W_dec, b_dec


def _jumprelu(file: Checkpoint, trainer: Keys) -> Weights:
    """x itself is encoded."""
    W_enc, b_enc, W_dec, b_dec = _matrices(file)
    (threshold,) = file.take({"threshold": (len(b_enc),)}, f"{len(b_enc)} features")
    trainer.get("bandwidth")
    return JumpRelu(threshold), W_enc, centred(W_enc, b_enc, b_dec), W_dec, b_dec


def _matrices(file: Checkpoint) -> tuple[Tensor, ...]:
    d, f = widths(file, "W_enc")
    return file.take({"W_enc": (d, f), "b_enc": (f,), "W_dec": (f, d), "b_dec": (d,)}, f"W_enc {(d, f)}")


def _learned(file: Checkpoint, trainer: Keys) -> Activation:
    """The threshold that training learned; one below 0 was never learned, and then all that is positive fires."""
    k = _k(file, trainer)
    (threshold,) = file.take({"threshold": ()}, CONFIG)
    if float(threshold) < 0:
        warnings.warn(
            f"{file.where}: threshold is {float(threshold):g}, which training never set, so every positive feature fires "
            f"and not {k} per row; its own loader gives the same codes",
            stacklevel=2,
        )
    return BatchTopK(k, threshold)


def _k(file: Checkpoint, trainer: Keys) -> int:
    if "k" not in file.tensors:
        return trainer.whole("k")
    found = int(file.take({"k": ()}, CONFIG)[0])
    trainer.agrees("k", found, f"the tensor k is {found}")
    return found


CLASSES: dict[str, Callable[[Checkpoint, Keys], Weights]] = {
    "AutoEncoder": _plain,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


def _read(file: Checkpoint) -> Parts:
    config, trainer = file.config, file.config.section("trainer")
    buffer = config.section("buffer")
    if (io := buffer.get("io", "out")) not in ("out", "in"):
        raise ValueError(
            f"{file.where}: buffer has io {io!r}, so it reads one site and writes another; nothing was loaded"
        )
    make = look_up(CLASSES, str(trainer.get("dict_class")), "class of dictionary", f"{file.where}, {CONFIG}")
    activation, W_enc, b_enc, W_dec, b_dec = make(file, trainer)
    d, f = W_enc.shape
    trainer.agrees("activation_dim", d, f"the encoder is of width {d}")
    trainer.agrees("dict_size", f, f"the encoder has {f} features")
    file.finish()
    norm = trainer.get("norm_factor")  # of training's rows: its biases are multiplied by it before they are written
    made_by = told_by("dictionary_learning", trainer, buffer, config)
    made_by |= {"dict_class": trainer.get("dict_class"), "io": io} | ({} if norm is None else {"norm_factor": norm})
    hook = _hook(trainer.get("submodule_name"), trainer.get("layer")) if io == "out" else None
    return Parts(activation, W_enc, b_enc, W_dec, b_dec, hook=hook, made_by=made_by)


def _hook(submodule: object, layer: object) -> str | None:
    """The residual stream behind a layer is what its scripts name `resid_post_layer_8`, and train on by default."""
    if isinstance(layer, bool) or not isinstance(layer, int):
        return None
    name = str(submodule or "resid_post")
    for word, hook in (("resid", "hook_resid_post"), ("mlp", "hook_mlp_out"), ("attn", "hook_attn_out")):
        if name.startswith(word):
            return f"blocks.{layer}.{hook}"
    return None


def _tells(names: frozenset[str], config: Keys) -> bool:
    return "trainer" in config and (names >= {"encoder.weight", "decoder.weight"} or names >= {"W_enc", "W_dec"})


DICTIONARY_LEARNING = Format(
    CONFIG,
    WEIGHTS,
    _tells,
    _read,
    "encoder.weight and decoder.weight, or W_enc and W_dec, and a trainer in config.json",
)
