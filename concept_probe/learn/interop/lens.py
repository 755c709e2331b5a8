"""Checkpoints of sae-lens 6, which is also the format that is written: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from concept_probe.learn.interop.normalise import Whitening, norm_scale_of, whitening_of
from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, centred
from concept_probe.learn.sae import Activation, BatchTopK, JumpRelu, Relu, Sae, TopK
from concept_probe.registry import look_up
from concept_probe.storage import file_sha256, write_sealed, write_text
from concept_probe.types import Site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.0.0"
"""The sae-lens version whose format is written: it selects sae-lens's reader."""
EncoderParts = tuple[Activation, Tensor, Tensor]
"""The activation, W_enc (d, f) and b_enc (f,)."""


class SaeLensModule(Protocol):
    """What is asked of a live `sae_lens.SAE`."""

    cfg: Any

    def state_dict(self) -> Mapping[str, Tensor]: ...


def _plain(make: Callable[[Checkpoint], Activation]) -> Callable[[Checkpoint, int, int], EncoderParts]:
    def read(file: Checkpoint, d: int, f: int) -> EncoderParts:
        W_enc, b_enc = file.take({"W_enc": (d, f), "b_enc": (f,)}, f"{CONFIG} (d_in {d}, d_sae {f})")
        return make(file), W_enc, b_enc

    return read


def _threshold(file: Checkpoint) -> Activation:
    (threshold,) = file.take({"threshold": (file.whole("d_sae"),)}, CONFIG)
    k = ours_of(file.config).get("batch_topk")
    return JumpRelu(threshold) if k is None else BatchTopK(int(k), threshold)


def _batch_threshold(file: Checkpoint) -> JumpRelu:
    """A training run's one threshold for all features: what sae-lens writes as `jumprelu` once training ends."""
    (one,) = file.take({"topk_threshold": ()}, CONFIG)
    return JumpRelu(one.to(file.tensors["b_enc"].dtype).expand(file.whole("d_sae")).clone())


def _gated(file: Checkpoint, d: int, f: int) -> EncoderParts:
    """Gate and magnitude share their directions, so one threshold on the magnitude says what the gate says.

    magnitude = e^r u + b_mag and gate = u + b_gate > 0 give magnitude > b_mag - e^r b_gate.
    """
    says = f"{CONFIG} (d_in {d}, d_sae {f})"
    W_enc, b_gate, b_mag, r_mag = file.take({"W_enc": (d, f), "b_gate": (f,), "b_mag": (f,), "r_mag": (f,)}, says)
    gain = r_mag.double().exp()
    threshold = b_mag.double() - gain * b_gate.double()
    return JumpRelu(threshold.to(W_enc.dtype)), (W_enc.double() * gain).to(W_enc.dtype), b_mag


ARCHITECTURES: dict[str, Callable[[Checkpoint, int, int], EncoderParts]] = {
    "topk": _plain(lambda file: TopK(file.whole("k"))),
    "standard": _plain(lambda file: Relu()),
    "jumprelu": _plain(_threshold),
    "batchtopk": _plain(_batch_threshold),
    "matryoshka_batchtopk": _plain(_batch_threshold),
    "gated": _gated,
}


def save_sae(sae: Sae, folder: str | Path) -> Path:
    """Write the autoencoder where sae-lens can load it, and return the folder.

    The scale is folded into the weights (W_enc scale, W_dec / scale, b_dec / scale), so that codes and
    reconstructions of raw rows are the same there; site, scale, provenance and the weights' sha256 are
    kept under metadata.concept_probe. Weights come first: a run killed in between leaves a
    configuration whose sha256 does not fit, which `load_sae` refuses.
    """
    folder = Path(folder)
    tensors = {"W_enc": sae.W_enc * sae.scale, "b_enc": sae.b_enc, "W_dec": sae.decoder, "b_dec": sae.bias}
    config: dict[str, Any] = {
        "architecture": sae.activation.architecture,
        "d_in": sae.d,
        "d_sae": sae.width,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if isinstance(sae.activation, TopK):
        config |= {"k": sae.activation.k, "rescale_acts_by_decoder_norm": False}
    threshold = getattr(sae.activation, "threshold", None)
    if threshold is not None:  # one per feature there, whether ours has one for each or one for all
        tensors["threshold"] = threshold.detach().to(sae.W_enc.dtype).expand(sae.width)
    write_sealed(folder / WEIGHTS, tensors, {})
    ours = {"site": str(sae.site), "scale": sae.scale, "sha256": file_sha256(folder / WEIGHTS), "made_by": sae.made_by}
    if isinstance(sae.activation, BatchTopK):
        ours["batch_topk"] = sae.activation.k
    config["metadata"] = {"sae_lens_version": VERSION, "hook_name": sae.site.path, "concept_probe": ours}
    # Escaped, since sae-lens reads it in whatever encoding its machine has.
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def from_sae_lens(module: SaeLensModule, site: Site) -> Sae:
    """A live `sae_lens.SAE` as an `Sae`: topk, standard, jumprelu, gated, or one of the batchtopk kinds in training.

    ValueError as for `load_sae`.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    file = Checkpoint(module.cfg.to_dict(), tensors, type(module).__name__)
    return _read(file).build(site, file.where)


def ours_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `save_sae` added to the configuration; empty for files of sae-lens itself."""
    return (config.get("metadata") or {}).get("concept_probe") or {}


def _of_version_6(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of sae-lens before 6 in today's words; today's own as it is."""
    if "architecture" in config and "activation_fn_str" not in config:
        return dict(config)
    new = {"architecture": "standard", **config}
    if config.get("activation_fn_str") == "topk":
        new |= {"architecture": "topk", "k": (config.get("activation_fn_kwargs") or {}).get("k")}
    old = config.get("normalize_activations")
    if old is None or isinstance(old, bool):
        new["normalize_activations"] = "expected_average_only_in" if old else "none"
    return new


def _read(file: Checkpoint) -> Parts:
    """Weights with everything folded that can be folded exactly: decoder norms, biases, scaling, whitening."""
    ours, config = ours_of(file.config), _of_version_6(file.config)
    file = Checkpoint(config, file.tensors, file.where, file.folder)
    make = look_up(ARCHITECTURES, str(config["architecture"]), "sae architecture", f"{file.where}, {CONFIG}")
    scale, whitening = norm_scale_of(file), whitening_of(file)
    d, f = file.whole("d_in"), file.whole("d_sae")
    activation, W_enc, b_enc = make(file, d, f)
    W_dec, b_dec = file.take({"W_dec": (f, d), "b_dec": (d,)}, f"{CONFIG} (d_in {d}, d_sae {f})")
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = torch.linalg.vector_norm(W_dec, dim=1)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    reads_x = not config.get("apply_b_dec_to_input", True)
    if whitening is not None:
        W_enc, b_enc, W_dec, b_dec = _unwhitened(whitening, W_enc, b_enc, W_dec, b_dec, reads_x)
    if reads_x:
        b_enc = centred(W_enc, b_enc, b_dec)
    stored = float(ours.get("scale", 1.0))  # folded into the weights when they were written
    return Parts(
        activation,
        W_enc / stored,
        b_enc,
        W_dec * stored,
        b_dec * stored,
        stored * scale,
        Site.parse(ours["site"]) if "site" in ours else None,
        ours.get("made_by") or {},
    )


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


SAE_LENS = Format(CONFIG, WEIGHTS, _read)
