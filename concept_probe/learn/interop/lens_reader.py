"""Checkpoints of sae-lens, of every version, read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.lens_dialects import in_todays_words, ours_of
from concept_probe.learn.interop.normalise import Whitening, normalisation
from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, centred, told_by
from concept_probe.learn.sae import Activation, BatchTopK, JumpRelu, Relu, TopK
from concept_probe.registry import look_up
from concept_probe.types import Site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
EncoderParts = tuple[Activation, Tensor, Tensor]
"""The activation, W_enc (d, f) and b_enc (f,)."""
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder", "topk_transcoder")


def _plain(make: Callable[[Checkpoint], Activation]) -> Callable[[Checkpoint, int, int], EncoderParts]:
    def read(file: Checkpoint, d: int, f: int) -> EncoderParts:
        W_enc, b_enc = file.take({"W_enc": (d, f), "b_enc": (f,)}, f"{CONFIG} (d_in {d}, d_sae {f})")
        return make(file), W_enc, b_enc

    return read


def _relu(file: Checkpoint) -> Activation:
    file.config.off("k", "and architecture 'standard' lets any number of features fire")
    return Relu()


def _threshold(file: Checkpoint) -> Activation:
    (threshold,) = file.take({"threshold": (file.config.whole("d_sae"),)}, CONFIG)
    k = (file.config.get("concept_probe") or {}).get("batch_topk")
    return JumpRelu(threshold) if k is None else BatchTopK(int(k), threshold)


def _batch_threshold(file: Checkpoint) -> JumpRelu:
    """A training run's one threshold for all features: what sae-lens writes as `jumprelu` once training ends."""
    (one,) = file.take({"topk_threshold": ()}, CONFIG)
    file.config.get("k")  # of training: the threshold stands for it
    file.config.get("matryoshka_widths")
    return JumpRelu(one.to(file.tensors["b_enc"].dtype).expand(file.config.whole("d_sae")).clone())


def gated_as_jumprelu(W_enc: Tensor, b_gate: Tensor, b_mag: Tensor, r_mag: Tensor) -> EncoderParts:
    """Gate and magnitude share their directions, so one threshold on the magnitude says what the gate says.

    magnitude = e^r u + b_mag and gate = u + b_gate > 0 give magnitude > b_mag - e^r b_gate.
    """
    gain = r_mag.double().exp()
    threshold = b_mag.double() - gain * b_gate.double()
    return JumpRelu(threshold.to(W_enc.dtype)), (W_enc.double() * gain).to(W_enc.dtype), b_mag


def _gated(file: Checkpoint, d: int, f: int) -> EncoderParts:
    says = f"{CONFIG} (d_in {d}, d_sae {f})"
    return gated_as_jumprelu(*file.take({"W_enc": (d, f), "b_gate": (f,), "b_mag": (f,), "r_mag": (f,)}, says))


ARCHITECTURES: dict[str, Callable[[Checkpoint, int, int], EncoderParts]] = {
    "topk": _plain(lambda file: TopK(file.config.whole("k"))),
    "standard": _plain(_relu),
    "jumprelu": _plain(_threshold),
    "batchtopk": _plain(_batch_threshold),
    "matryoshka_batchtopk": _plain(_batch_threshold),
    "gated": _gated,
}
RESCALED = ("topk", "batchtopk", "matryoshka_batchtopk")
"""Architectures that know `rescale_acts_by_decoder_norm`."""


def parts_of(config: Mapping[str, Any], file: Checkpoint) -> Parts:
    """Weights with everything folded that can be folded exactly: decoder norms, biases, scaling, whitening."""
    ours = ours_of(config)
    where = f"{file.where}, {CONFIG}"
    keys = Keys(in_todays_words(config, file.where), file.where)
    file = Checkpoint(keys, file.tensors, file.where, file.folder)
    architecture = str(keys.get("architecture"))
    if architecture in TRANSCODERS:
        raise ValueError(
            f"{file.where}: architecture is {architecture!r}, and a transcoder reads one site and writes another; "
            "load_transcoder reads those that can be read"
        )
    make = look_up(ARCHITECTURES, architecture, "sae architecture", where)
    row_norm, scale, whitening = normalisation(file)
    d, f = keys.whole("d_in"), keys.whole("d_sae")
    activation, W_enc, b_enc = make(file, d, f)
    W_dec, b_dec = file.take({"W_dec": (f, d), "b_dec": (d,)}, f"{CONFIG} (d_in {d}, d_sae {f})")
    if architecture in RESCALED and keys.flag("rescale_acts_by_decoder_norm"):
        norms = torch.linalg.vector_norm(W_dec, dim=1).clamp_min(1e-8)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    gain = _finetuned(file, f)
    W_dec = W_dec if gain is None else W_dec * gain[:, None]
    reads_x = not keys.flag("apply_b_dec_to_input", True)
    if whitening is not None:
        W_enc, b_enc, W_dec, b_dec = _unwhitened(whitening, W_enc, b_enc, W_dec, b_dec, reads_x)
    if reads_x:
        b_enc = centred(W_enc, b_enc, b_dec)
    stored = float(ours.get("scale", 1.0))  # folded into the weights when they were written
    if (head := keys.get("hook_head_index")) is not None:
        raise ValueError(
            f"{file.where}: hook_head_index is {head!r}, so it reads one head alone, and sites give all heads side by "
            "side; nothing was loaded"
        )
    hook = keys.get("hook_name")
    if keys.get("hook_name_out") not in (None, "", hook):
        raise ValueError(
            f"{file.where}: it reads {hook!r} and writes {keys.peek('hook_name_out')!r}; nothing was loaded"
        )
    made_by = ours.get("made_by") or {}
    if not ours:
        made_by = {**_context(keys, hook), **told_by("sae-lens", keys)}
        file.finish()
    return Parts(
        activation,
        W_enc / stored,
        b_enc,
        W_dec * stored,
        b_dec * stored,
        stored * scale,
        row_norm,
        Site.parse(ours["site"]) if "site" in ours else None,
        hook=hook if isinstance(hook, str) else None,
        made_by=made_by,
    )


def _finetuned(file: Checkpoint, f: int) -> Tensor | None:
    """What sae-lens before 6 multiplies codes by (f,) before they are written; None where it does not.

    ValueError where the tensor and the configuration contradict each other.
    """
    on = file.config.flag("finetuning_scaling_factor")
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in file.tensors:
            (factor,) = file.take({name: (f,)}, f"{CONFIG} (d_sae {f})")
            if torch.allclose(factor, torch.ones_like(factor)):
                return None
            if not on:
                raise ValueError(
                    f"{file.where}: {name} is not 1 everywhere and finetuning_scaling_factor is false; nothing was loaded"
                )
            return factor
    if on:
        raise ValueError(
            f"{file.where}: finetuning_scaling_factor is true and the tensor scaling_factor is not there; "
            "nothing was loaded"
        )
    return None


def _context(keys: Keys, hook: object) -> dict[str, Any]:
    """What the file says of its subject, in its own words."""
    known = {name: keys.get(name) for name in ("dtype",) if name in keys}
    if isinstance(hook, str):
        known["hook_name"] = hook
    return known


def _unwhitened(
    white: Whitening, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, reads_x: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights on raw rows of an autoencoder of (x - mean) matrix: the map is affine, so it can be taken in."""
    kind = W_enc.dtype
    W_enc = white.matrix @ W_enc.double()
    if reads_x:
        b_enc = (b_enc.double() - white.mean @ W_enc).to(kind)
    W_dec, b_dec = W_dec.double() @ white.inverse, b_dec.double() @ white.inverse + white.mean
    return W_enc.to(kind), b_enc, W_dec.to(kind), b_dec.to(kind)


def read(file: Checkpoint) -> Parts:
    """The parts of a folder that sae-lens wrote, or `save_sae`."""
    return parts_of(file.config.whole_object(), file)


SAE_LENS = Format(
    CONFIG,
    WEIGHTS,
    lambda names, config: names >= {"W_enc", "W_dec", "b_dec"} and "trainer" not in config,
    read,
    "W_enc, W_dec, b_dec",
)
